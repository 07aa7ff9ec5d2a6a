// A clock that is wrong, for one process. Preloaded, this adds to the wall clock what a file says, in seconds as eight
// bytes. The monotonic clock, by which a process waits, is left alone: nobody sets that one either.

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, id, now);
    const char *path = id == CLOCK_REALTIME ? getenv("SAGABUS_TEST_CLOCK") : NULL;
    if (failed || !path)
        return failed;
    int64_t seconds = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return failed;
    if (read(file, &seconds, sizeof seconds) == sizeof seconds)
        now->tv_sec += seconds;
    close(file);
    return failed;
}
