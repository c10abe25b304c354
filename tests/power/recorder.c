/* Records what a process does to the files of one folder, in the order in which it was done, so
 * that a test can rebuild what a power cut would have left. It is preloaded (LD_PRELOAD); what it
 * takes the place of goes straight to the system. A program that renames without the C library, as
 * one of the store's dependencies does, is stopped at that call by a seccomp filter, and its rename
 * is done here. Whatever else were to pass by is found by the test: rebuilt without a cut, the folder
 * must be what it is.
 *
 *   UNHIDRA_RECORD_ROOT   the folder, absolute, without links in it
 *   UNHIDRA_RECORD_LOG    the recording, outside the folder; several processes may share it
 *   UNHIDRA_SYNC_MS       a sync takes at least so long, as on a slow disk
 *   UNHIDRA_FAIL_SYNC     a file: where it exists, the next sync takes it away and fails with EIO
 *   UNHIDRA_READ_ONLY     a file: while it exists, the folder is as on a disk that became read-only;
 *                         a real one cannot be made so while files are open for writing
 *
 * One record is one write to a file opened for appending, so that the records of all threads and
 * processes stand in one order. What is done to a file is recorded once it is done, a sync before
 * it begins and after it has ended: a write counts as synced only where its record stands before
 * the beginning.
 *
 *   record   kind(4) thread(4) file(8) at(8) path_len(4) other_len(4) data_len(8) path other data
 *
 * Numbers are in the order of the machine. `file` is the inode's number.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, RENAME, UNLINK, MKDIR, RMDIR, SYNC_BEGINS, SYNC_ENDS, UNKNOWN, SYNC_FAILS };

struct head {
    uint32_t kind, thread;
    uint64_t file, at;
    uint32_t path_len, other_len;
    uint64_t data_len;
};

static char root[PATH_MAX];
static size_t root_len;
static int out = -1;
static long sync_ms;
static const char *fail_sync, *read_only;

static void catch_renames(void);

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("UNHIDRA_RECORD_ROOT"), *file = getenv("UNHIDRA_RECORD_LOG");
    const char *ms = getenv("UNHIDRA_SYNC_MS");
    if (!folder || !file || strlen(folder) >= sizeof root) return;
    strcpy(root, folder);
    root_len = strlen(root);
    sync_ms = ms ? atol(ms) : 0;
    fail_sync = getenv("UNHIDRA_FAIL_SYNC");
    read_only = getenv("UNHIDRA_READ_ONLY");
    out = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0) abort();
    catch_renames();
}

static void put(enum kind kind, uint64_t file, uint64_t at, const char *path, const char *other,
                const struct iovec *data, int count, uint64_t data_len) {
    struct head head = { kind, (uint32_t)syscall(SYS_gettid), file, at, path ? strlen(path) : 0,
                         other ? strlen(other) : 0, data_len };
    struct iovec parts[IOV_MAX];
    int used = 0, error = errno;
    ssize_t whole = (ssize_t)(sizeof head + head.path_len + head.other_len + data_len);
    parts[used++] = (struct iovec){ &head, sizeof head };
    if (path) parts[used++] = (struct iovec){ (char *)path, head.path_len };
    if (other) parts[used++] = (struct iovec){ (char *)other, head.other_len };
    for (int i = 0; i < count && data_len > 0; i++) {
        size_t len = data[i].iov_len < data_len ? data[i].iov_len : data_len;
        if (used == IOV_MAX) abort();
        parts[used++] = (struct iovec){ data[i].iov_base, len };
        data_len -= len;
    }
    /* A recording with a gap proves nothing. */
    if (syscall(SYS_writev, out, parts, used) != whole) abort();
    errno = error;
}

static int inside(const char *path) {
    return out >= 0 && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

/* Whether a descriptor is a file or folder that is recorded; its state, and its path if asked. */
static int recorded(int fd, struct stat *state, char *path) {
    char link[64], found[PATH_MAX];
    int error = errno, is = 0;
    if (out >= 0 && fd != out && !fstat(fd, state) && (S_ISREG(state->st_mode) || S_ISDIR(state->st_mode))) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t len = syscall(SYS_readlinkat, AT_FDCWD, link, found, sizeof found - 1);
        if (len > 0) {
            found[len] = 0;
            is = inside(found);
            if (path) strcpy(path, found);
        }
    }
    errno = error;
    return is;
}

/* The absolute path of what a call names; whether it is recorded. */
static int named(int folder, const char *name, char *path) {
    char base[PATH_MAX] = "", link[64];
    int error = errno;
    if (name[0] != '/') {
        if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t len = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 2);
        if (len < 0) len = 0;
        base[len] = 0;
        strcat(base, "/");
    }
    snprintf(path, PATH_MAX, "%s%s", base, name);
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') path[--len] = 0;
    errno = error;
    return inside(path);
}

/* Whether the disk takes nothing just now; says so in errno. */
static int refuses(void) {
    int error = errno;
    int is = read_only && !syscall(SYS_faccessat, AT_FDCWD, read_only, F_OK);
    errno = is ? EROFS : error;
    return is;
}

static int refuses_file(int fd) {
    struct stat state;
    return read_only && recorded(fd, &state, NULL) && refuses();
}

static int refuses_name(int folder, const char *name) {
    char path[PATH_MAX];
    return read_only && named(folder, name, path) && refuses();
}

static int open_as(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat state;
    if ((flags & O_ACCMODE) != O_RDONLY && refuses_name(folder, name)) return -1;
    int watched = (flags & (O_CREAT | O_TRUNC)) && named(folder, name, path);
    int error = errno;
    int there = watched && !fstatat(AT_FDCWD, path, &state, AT_SYMLINK_NOFOLLOW);
    errno = error;
    int fd = (int)syscall(SYS_openat, folder, name, flags, mode);
    if (fd >= 0 && watched && recorded(fd, &state, path) && S_ISREG(state.st_mode)) {
        if (!there) put(CREATE, state.st_ino, 0, path, NULL, NULL, 0, 0);
        else if (flags & O_TRUNC) put(TRUNCATE, state.st_ino, 0, NULL, NULL, NULL, 0, 0);
    }
    return fd;
}

#define MODE(last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, last); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *name, int flags, ...) { MODE(flags) return open_as(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_as(AT_FDCWD, name, flags, mode); }
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return open_as(folder, name, flags, mode); }
int openat64(int folder, const char *name, int flags, ...) { MODE(flags) return open_as(folder, name, flags, mode); }
int creat(const char *name, mode_t mode) { return open_as(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* What was written, once it was. Without `at` it ended where the descriptor stands now. */
static ssize_t wrote(int fd, ssize_t len, const struct iovec *data, int count, off_t at) {
    struct stat state;
    if (len > 0 && recorded(fd, &state, NULL)) {
        if (at < 0) at = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) - len;
        put(WRITE, state.st_ino, (uint64_t)at, NULL, NULL, data, count, (uint64_t)len);
    }
    return len;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    struct iovec data = { (void *)bytes, len };
    if (refuses_file(fd)) return -1;
    return wrote(fd, syscall(SYS_write, fd, bytes, len), &data, 1, -1);
}
ssize_t writev(int fd, const struct iovec *data, int count) {
    if (refuses_file(fd)) return -1;
    return wrote(fd, syscall(SYS_writev, fd, data, count), data, count, -1);
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    struct iovec data = { (void *)bytes, len };
    if (refuses_file(fd)) return -1;
    return wrote(fd, syscall(SYS_pwrite64, fd, bytes, len, at), &data, 1, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t at) { return pwrite(fd, bytes, len, at); }

static int truncated(int fd, int done, off_t len) {
    struct stat state;
    if (!done && recorded(fd, &state, NULL)) put(TRUNCATE, state.st_ino, (uint64_t)len, NULL, NULL, NULL, 0, 0);
    return done;
}
int ftruncate(int fd, off_t len) { return refuses_file(fd) ? -1 : truncated(fd, (int)syscall(SYS_ftruncate, fd, len), len); }
int ftruncate64(int fd, off_t len) { return ftruncate(fd, len); }

static int sync_as(int fd, long call) {
    char path[PATH_MAX];
    struct stat state;
    if (!recorded(fd, &state, path)) return (int)syscall(call, fd);
    const char *folder = S_ISDIR(state.st_mode) ? path : NULL;
    if (refuses()) return -1;
    if (fail_sync && !syscall(SYS_unlinkat, AT_FDCWD, fail_sync, 0)) {
        put(SYNC_FAILS, state.st_ino, 0, folder, NULL, NULL, 0, 0);
        errno = EIO;
        return -1;
    }
    errno = 0;
    put(SYNC_BEGINS, state.st_ino, 0, folder, NULL, NULL, 0, 0);
    int done = (int)syscall(call, fd), error = errno;
    struct timespec wait = { sync_ms / 1000, sync_ms % 1000 * 1000000 };
    if (sync_ms) syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &wait, NULL);
    if (!done) put(SYNC_ENDS, state.st_ino, 0, folder, NULL, NULL, 0, 0);
    errno = error;
    return done;
}
int fsync(int fd) { return sync_as(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_as(fd, SYS_fdatasync); }

/* Marks our own calls for the filter: the system looks at five arguments. */
#define OURS 0x756e6864

static int renamed(int from, const char *old, int to, const char *new, unsigned flags) {
    char path[PATH_MAX], other[PATH_MAX];
    if (refuses_name(to, new)) return -1;
    /* Named before: a folder that moves takes its paths with it. */
    int watched = named(from, old, path) | named(to, new, other);
    int done = (int)syscall(SYS_renameat2, from, old, to, new, flags, OURS);
    if (!done && watched) put(flags ? UNKNOWN : RENAME, 0, 0, path, other, NULL, 0, 0);
    return done;
}
int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return renamed(from, old, to, new, flags);
}

#if defined(__x86_64__)
#define ARGUMENT(n) (context->uc_mcontext.gregs[(int[]){ REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8 }[n]])
#define RESULT (context->uc_mcontext.gregs[REG_RAX])
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARGUMENT(n) (context->uc_mcontext.regs[n])
#define RESULT (context->uc_mcontext.regs[0])
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "the recorder knows x86-64 and arm64"
#endif

static void caught(int signal, siginfo_t *info, void *state) {
    ucontext_t *context = state;
    int error = errno, done;
    (void)signal;
#ifdef SYS_rename
    if (info->si_syscall == SYS_rename)
        done = renamed(AT_FDCWD, (char *)ARGUMENT(0), AT_FDCWD, (char *)ARGUMENT(1), 0);
    else
#endif
        done = renamed((int)ARGUMENT(0), (char *)ARGUMENT(1), (int)ARGUMENT(2), (char *)ARGUMENT(3),
                       info->si_syscall == SYS_renameat2 ? (unsigned)ARGUMENT(4) : 0);
    RESULT = done ? -errno : 0;
    errno = error;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, value)

static void catch_renames(void) {
    struct sigaction action = { .sa_sigaction = caught, .sa_flags = SA_SIGINFO };
    struct sock_filter filter[] = {
        LOAD(arch), EQUAL(ARCHITECTURE, 0, 7), LOAD(nr), EQUAL(SYS_renameat2, 3, 0), EQUAL(SYS_renameat, 5, 0),
#ifdef SYS_rename
        EQUAL(SYS_rename, 4, 0),
#else
        EQUAL(SYS_renameat, 4, 0),
#endif
        RETURN(SECCOMP_RET_ALLOW), LOAD(args[5]), EQUAL(OURS, 0, 1), RETURN(SECCOMP_RET_ALLOW),
        RETURN(SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (sigaction(SIGSYS, &action, NULL) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
        abort();
}

static int removed(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    int watched = named(folder, name, path);
    if (watched && refuses()) return -1;
    int done = (int)syscall(SYS_unlinkat, folder, name, flags);
    if (!done && watched) put(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, path, NULL, NULL, 0, 0);
    return done;
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return removed(folder, name, flags); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }

static int made(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    int watched = named(folder, name, path);
    if (watched && refuses()) return -1;
    int done = (int)syscall(SYS_mkdirat, folder, name, mode);
    if (!done && watched) put(MKDIR, 0, 0, path, NULL, NULL, 0, 0);
    return done;
}
int mkdir(const char *name, mode_t mode) { return made(AT_FDCWD, name, mode); }
int mkdirat(int folder, const char *name, mode_t mode) { return made(folder, name, mode); }

/* What the recording cannot say is named, and the test that reads it fails. */
static void unknown(int fd, const char *call) {
    struct stat state;
    char path[PATH_MAX];
    if (recorded(fd, &state, path)) put(UNKNOWN, state.st_ino, 0, path, call, NULL, 0, 0);
}
void *mmap(void *near, size_t len, int protection, int flags, int fd, off_t at) {
    if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE)) unknown(fd, "mmap");
    return (void *)syscall(SYS_mmap, near, len, protection, flags, fd, at);
}
void *mmap64(void *near, size_t len, int protection, int flags, int fd, off_t at) {
    return mmap(near, len, protection, flags, fd, at);
}
ssize_t pwritev(int fd, const struct iovec *data, int count, off_t at) {
    unknown(fd, "pwritev");
    return syscall(SYS_pwritev, fd, data, count, at, 0);
}
int fallocate(int fd, int mode, off_t at, off_t len) {
    unknown(fd, "fallocate");
    return (int)syscall(SYS_fallocate, fd, mode, at, len);
}
int sync_file_range(int fd, off64_t at, off64_t len, unsigned flags) {
    unknown(fd, "sync_file_range");
    return (int)syscall(SYS_sync_file_range, fd, at, len, flags);
}
int linkat(int from, const char *old, int to, const char *new, int flags) {
    char path[PATH_MAX];
    int done = (int)syscall(SYS_linkat, from, old, to, new, flags);
    if (!done && named(to, new, path)) put(UNKNOWN, 0, 0, path, "linkat", NULL, 0, 0);
    return done;
}
