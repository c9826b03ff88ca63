"""Neovim as a client: MessagePack-RPC by people who have never heard of ptyd.

Neovim packs every text as msgpack `str`, valid UTF-8 or not, sends an empty Lua table as an empty
array, and answers notifications that it does not know with one of its own. All of that must work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any, Final

import pytest

from tests.support import processes
from tests.support.daemon import RuntimeDir

NVIM: Final = shutil.which("nvim")
pytestmark = [
    pytest.mark.skipif(NVIM is None, reason="needs nvim (Debian package neovim)"),
    pytest.mark.unmeasured,
]

DEADLINE_S: Final = 30.0
PRELUDE: Final = """
let g:seen = {}
let g:ptyd = sockconnect('pipe', $PTYD_SOCKET, {'rpc': 1})

function! Ptyd(method, ...)
  return call('rpcrequest', [g:ptyd, a:method] + a:000)
endfunction

" Read from `offset` on until `wanted` is there; five seconds at most.
function! ReadUntil(id, offset, wanted)
  let data = ''
  let offset = a:offset
  let began = reltime()
  while stridx(data, a:wanted) < 0 && reltimefloat(reltime(began)) < 5
    let got = Ptyd('session.read', {'id': a:id, 'offset': offset, 'wait_ms': 1000})
    let data .= got.data
    let offset = got.next
  endwhile
  return {'data': data, 'next': offset}
endfunction

function! ErrorOf(method, ...)
  try
    call call('Ptyd', [a:method] + a:000)
    return 'no error'
  catch
    return v:exception
  endtry
endfunction
"""


def run_in_neovim(runtime: RuntimeDir, body: str) -> dict[str, Any]:
    """Run a Vim script with `Ptyd()` in it; return what it left in `g:seen`.

    Raises:
        AssertionError: the script threw, with Neovim's own message.
    """
    assert NVIM is not None
    script, result = runtime.base / "script.vim", runtime.base / "seen.json"
    result.unlink(missing_ok=True)
    script.write_text(
        f"{PRELUDE}\ntry\n{body}\ncatch\n  let g:seen.thrown = v:throwpoint .. ': ' .. v:exception\nendtry\n"
        f"call writefile([json_encode(g:seen)], '{result}')\nqall!\n"
    )
    ended = subprocess.run(
        [NVIM, "--headless", "--clean", "-S", str(script)],
        env={**_environment(runtime), "PTYD_SOCKET": str(runtime.socket)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert result.exists(), f"nvim ended with {ended.returncode}:\n{ended.stderr}"
    seen: dict[str, Any] = json.loads(result.read_text())
    assert "thrown" not in seen, f"{seen['thrown']}\n{ended.stderr}"
    return seen


def _environment(runtime: RuntimeDir) -> dict[str, str]:
    """Neovim keeps state and swap files where the XDG variables say: nowhere near a person's."""
    own = {name: str(runtime.home / name) for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    return {"PATH": os.environ["PATH"], "HOME": str(runtime.home), "LANG": "C.UTF-8", **own}


def test_hello_spawn_input_read_list_kill(daemon: RuntimeDir) -> None:
    seen = run_in_neovim(
        daemon,
        r"""
        let g:seen.hello = Ptyd('hello', {'client': 'neovim', 'protocols': [1]})
        let session = Ptyd('session.spawn', {'argv': ['sh'], 'env': {'PS1': '$ '}, 'labels': {'from': 'vim'}})
        let g:seen.session = session
        let g:seen.accepted = Ptyd('session.input', {'id': session.id, 'data': "echo $((6 * 7))ready\n"})
        let g:seen.read = ReadUntil(session.id, 0, "42ready")
        let g:seen.list = Ptyd('session.list', {'labels': {'from': 'vim'}, 'detail': v:true})
        let g:seen.kill = Ptyd('session.kill', {'id': session.id, 'grace_ms': 200})
        let g:seen.left = Ptyd('session.get', {'id': session.id})
        """,
    )
    session = seen["session"]
    assert (seen["hello"]["server"], seen["hello"]["protocol"]) == ("ptyd", 1)
    assert seen["accepted"] == {"accepted": len("echo $((6 * 7))ready\n")}
    assert "42ready\r\n" in seen["read"]["data"]
    assert [found["id"] for found in seen["list"]["sessions"]] == [session["id"]]
    assert seen["list"]["complete"] is True
    assert seen["list"]["sessions"][0]["foreground"]["pid"] == session["pid"]
    assert (seen["kill"]["outcome"], seen["kill"]["proof"]) == ("killed", "echild")
    assert not processes.alive(session["pid"])
    assert (seen["left"]["state"], seen["left"]["proof"]) == ("exited", "echild")


def test_an_error_is_shown_by_vim_in_its_own_words(daemon: RuntimeDir) -> None:
    seen = run_in_neovim(
        daemon,
        r"""
        let g:seen.missing = ErrorOf('session.get', {'id': 'nobody'})
        let g:seen.program = ErrorOf('session.spawn', {'argv': ['/no/such/program']})
        let g:seen.field = ErrorOf('session.spawn', {'argv': ['sh'], 'rows': '24'})
        let g:seen.method = ErrorOf('session.fly', {})
        let g:seen.still_there = Ptyd('session.list', {}).sessions
        """,
    )
    # "Vim(call):Error invoking 'session.get' on channel 3:\nnot_found: no session nobody; see: …"
    assert re.search(r"invoking 'session\.get' .*\nnot_found: no session nobody; ", seen["missing"])
    assert "\nprogram_not_found: " in seen["program"]
    assert re.search(r"\ninvalid_params: .*rows", seen["field"])
    assert "\nunknown_method: " in seen["method"]
    assert seen["still_there"] == []


def test_every_way_neovim_writes_no_parameters(daemon: RuntimeDir) -> None:
    """An empty dictionary is an empty map from Vim script, and an empty array from Lua."""
    seen = run_in_neovim(
        daemon,
        r"""
        let g:seen.none = Ptyd('session.list').complete
        let g:seen.vim = Ptyd('session.list', {}).complete
        let g:seen.lua = luaeval("vim.rpcrequest(_A, 'session.list', {}).complete", g:ptyd)
        let g:seen.lua_map = luaeval("vim.rpcrequest(_A, 'session.list', vim.empty_dict()).complete", g:ptyd)
        let g:seen.nil = luaeval("vim.rpcrequest(_A, 'session.list', {state = vim.NIL}).complete", g:ptyd)
        let nested = "{argv = {'true'}, env = {}, labels = {}}"
        let g:seen.nested = luaeval("vim.rpcrequest(_A, 'session.spawn', " .. nested .. ").labels", g:ptyd)
        """,
    )
    assert seen.pop("nested") == {}
    assert seen == dict.fromkeys(("none", "vim", "lua", "lua_map", "nil"), True)


def test_bytes_that_are_no_text_pass_unchanged(daemon: RuntimeDir) -> None:
    """Neovim has no type for bytes: it sends them as `str` and takes `bin` for its own strings."""
    seen = run_in_neovim(
        daemon,
        r"""
        let argv = ['sh', '-c', 'stty raw -echo; echo up; exec cat']
        let session = Ptyd('session.spawn', {'argv': argv})
        let up = ReadUntil(session.id, 0, "up\n")
        let sent = "\xff\xfe\x80 caf\u00e9 \xc3\x1b[31m<end>"
        call Ptyd('session.input', {'id': session.id, 'data': sent})
        let got = ReadUntil(session.id, up.next, '<end>')
        let g:seen.same = got.data ==# sent
        let g:seen.got = map(range(strlen(got.data)), 'char2nr(g:got.data[v:val])')
        call Ptyd('session.kill', {'id': session.id, 'force': v:true})
        """,
    )
    assert bytes(seen["got"]) == b"\xff\xfe\x80 caf\xc3\xa9 \xc3\x1b[31m<end>"
    assert seen["same"] == 1


def test_input_as_a_notification(daemon: RuntimeDir) -> None:
    seen = run_in_neovim(
        daemon,
        r"""
        let session = Ptyd('session.spawn', {'argv': ['sh', '-c', 'stty raw -echo; echo up; exec cat']})
        let up = ReadUntil(session.id, 0, "up\n")
        for line in range(100)
          call rpcnotify(g:ptyd, 'session.input', {'id': session.id, 'data': line .. ','})
        endfor
        let g:seen.got = ReadUntil(session.id, up.next, '99,').data
        call Ptyd('session.kill', {'id': session.id, 'force': v:true})
        """,
    )
    assert seen["got"] == "".join(f"{line}," for line in range(100))


def test_a_stream_that_neovim_cannot_take_does_not_cost_it_the_connection(daemon: RuntimeDir) -> None:
    """For each `session.output` Neovim sends `nvim_error_event`, with two parameters and no map."""
    seen = run_in_neovim(
        daemon,
        r"""
        let session = Ptyd('session.spawn', {'argv': ['sh', '-c', 'stty raw -echo; echo up; exec cat']})
        let g:seen.attached = Ptyd('session.attach', {'id': session.id, 'since': 'start'}).truncated
        let up = ReadUntil(session.id, 0, "up\n")
        for line in range(20)
          call Ptyd('session.input', {'id': session.id, 'data': line .. ','})
        endfor
        let g:seen.got = ReadUntil(session.id, up.next, '19,').data
        let g:seen.kill = Ptyd('session.kill', {'id': session.id, 'force': v:true}).outcome
        let g:seen.hello = Ptyd('session.list').complete
        """,
    )
    assert seen["attached"] == 0
    assert seen["got"] == "".join(f"{line}," for line in range(20))
    assert (seen["kill"], seen["hello"]) == ("killed", True)


def test_sessions_outlive_neovim_and_the_daemon(daemon: RuntimeDir) -> None:
    first = run_in_neovim(
        daemon,
        r"""
        let g:seen.id = Ptyd('session.spawn', {'argv': ['sh'], 'name': 'kept'}).id
        call Ptyd('session.input', {'id': 'kept', 'data': "echo one$((1))\n"})
        let g:seen.next = ReadUntil('kept', 0, 'one1').next
        """,
    )
    daemon.wait_for_new_daemon(daemon.kill_daemon())
    second = run_in_neovim(
        daemon,
        f"""
        call Ptyd('session.input', {{'id': 'kept', 'data': "echo two$((1 + 1))\\n"}})
        let g:seen.more = ReadUntil('kept', {first["next"]}, 'two2').data
        let g:seen.all = ReadUntil('kept', 0, 'two2').data
        let g:seen.id = Ptyd('session.get', {{'id': 'kept'}}).id
        let g:seen.proof = Ptyd('session.kill', {{'id': 'kept', 'force': v:true}}).proof
        """,
    )
    assert second["id"] == first["id"]
    assert "two2" in second["more"]
    assert "one1" not in second["more"]
    assert "one1" in second["all"]
    assert second["proof"] == "echild"
