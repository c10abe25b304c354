/* A disk whose syncs take at least so long: preloaded (LD_PRELOAD) into what is measured.
 *
 *   BENCH_SYNC_US   the least a sync takes, in microseconds
 *
 * The sync itself is the system's. Who waits for one sleeps until the time is over, as it would on a
 * slow disk: the processor is free meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int slowly(long call, int file) {
    const char *least = getenv("BENCH_SYNC_US");
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    long ns = until.tv_nsec + (least ? atol(least) : 0) * 1000;
    until.tv_sec += ns / 1000000000;
    until.tv_nsec = ns % 1000000000;
    int outcome = (int)syscall(call, file);
    int error = errno;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
    errno = error;
    return outcome;
}

int fsync(int file) { return slowly(SYS_fsync, file); }

int fdatasync(int file) { return slowly(SYS_fdatasync, file); }
