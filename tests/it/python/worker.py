"""Something like a worker with forked children: it works when told to, and says what that took.

It reads words from stdin, one a line:
    merge SECONDS   a forked child uses so much CPU time in merge_average, holding 50 MB
    hold            it allocates 50 MB itself, and keeps them
    quit            it ends
and answers with a line of JSON each: CPU time of itself and its children, and what was resident.
"""

import ctypes
import json
import os
import resource
import select
import time

PAGES = 50


def may_be_traced():
    """By anyone of this user: what Yama, where there is one, allows only parents."""
    pr_set_ptracer = 0x59616D61
    ctypes.CDLL(None).prctl(pr_set_ptracer, ctypes.c_ulong(-1), 0, 0, 0)


def allocate_pages(number):
    pages = []
    for _ in range(number):
        pages.append(bytearray(b"x") * 1_000_000)
    return pages


def merge_average(pages, seconds):
    total, end = 0, time.process_time() + seconds
    while time.process_time() < end:
        for page in pages:
            total += sum(page[:2_000])
    return total


def cpu():
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def child(seconds, answer):
    may_be_traced()
    pages = allocate_pages(PAGES)
    merge_average(pages, seconds)
    os.write(answer, str(resident()).encode())
    os._exit(0)


def lines():
    """What comes in on stdin. Like a worker's event loop it wakes up now and then and allocates
    something: a debugger gets into Python only while that does so."""
    left = b""
    while True:
        while b"\n" not in left:
            bytearray(100_000)
            if select.select([0], [], [], 0.05)[0]:
                read = os.read(0, 1_000)
                if not read:
                    return
                left += read
        line, left = left.split(b"\n", 1)
        yield line.decode()


def main():
    may_be_traced()
    kept = []
    print(json.dumps({"cpu": cpu()}), flush=True)
    for line in lines():
        word, *rest = line.split()
        if word == "quit":
            return
        if word == "hold":
            kept.append(allocate_pages(PAGES))
            print(json.dumps({"cpu": cpu(), "own": resident()}), flush=True)
            continue
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            child(float(rest[0]), write)
        os.close(write)
        of_child = int(os.read(read, 100) or 0)
        os.close(read)
        os.waitpid(pid, 0)
        print(json.dumps({"cpu": cpu(), "own": resident(), "child": of_child}), flush=True)


main()
