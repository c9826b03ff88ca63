"""Tests of the wire protocol: pure, no socket, no clock."""
