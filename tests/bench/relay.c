/* The physical limit: one program on a PTY, one client on a unix socket, bytes copied both ways
 * and nothing else. No history, no second client, no end but its own kill.
 *
 * usage: relay SOCKET PROGRAM [ARGUMENT ...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER_BYTES = 65536, FLOOD_BYTES = 2048 };

static char buffer[BUFFER_BYTES];

static void write_all(int fd, const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, size);
		if (n > 0) {
			data += n;
			size -= n;
		} else if (n < 0 && errno == EAGAIN) {
			struct pollfd writable = { fd, POLLOUT, 0 };
			poll(&writable, 1, -1);
		} else if (n == 0 || errno != EINTR) {
			exit(1);
		}
	}
}

/* A PTY gives 4 KiB at most at a time: under a flood, gather what is there. */
static size_t gather(int pty)
{
	size_t size = 0;
	for (;;) {
		ssize_t n = read(pty, buffer + size, BUFFER_BYTES - size);
		if (n < 0 && errno == EAGAIN)
			return size;
		if (n <= 0)
			exit(0);
		size += n;
		if (n < FLOOD_BYTES || size == BUFFER_BYTES)
			return size;
	}
}

static int accept_client(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
		exit(1);
	return accept(listener, NULL, NULL);
}

int main(int argc, char **argv)
{
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	int pty;

	if (argc < 3)
		return 2;
	switch (forkpty(&pty, NULL, NULL, &size)) {
	case -1:
		return 1;
	case 0:
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	int client = accept_client(argv[1]);
	fcntl(pty, F_SETFL, O_NONBLOCK);
	struct pollfd ends[] = { { pty, POLLIN, 0 }, { client, POLLIN, 0 } };
	for (;;) {
		if (poll(ends, 2, -1) < 0)
			return 1;
		if (ends[1].revents) {
			ssize_t n = read(client, buffer, BUFFER_BYTES);
			if (n <= 0)
				return 0;
			write_all(pty, buffer, n);
		}
		if (ends[0].revents)
			write_all(client, buffer, gather(pty));
	}
}
