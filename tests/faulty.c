/* A disk, a clock and a memory that fail on demand: loaded before the C library by LD_PRELOAD (tests/faulty.py).

   FAULTY_PREFIX   the fault is for paths that begin so (after links in the folder part are followed)
   FAULTY_ERRNO    what the system says: ENOSPC, EDQUOT, EIO, EROFS, EACCES as numbers
   FAULTY_OPEN     set: opening for writing, making folders, renaming and linking under the prefix fail
   FAULTY_READ     set: opening for reading under the prefix fails
   FAULTY_AFTER    bytes that all processes together may write under the prefix before writing fails, as on a full disk
   FAULTY_COUNT    a file of 8 bytes, shared by the processes, where the bytes are counted
   FAULTY_CLOCK    set: the wall clock jumps an hour forth and a day back with every look at it

   The monotonic clock is left alone: no machine's jumps. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static const char *prefix;
static size_t prefix_length;
static int number, deny_open, deny_read, jumping;
static int64_t allowed = -1;
static _Atomic int64_t *written;
static _Atomic int looks;

static long number_of(const char *name, long otherwise) {
    const char *value = getenv(name);
    return value && *value ? atol(value) : otherwise;
}

__attribute__((constructor)) static void begin(void) {
    prefix = getenv("FAULTY_PREFIX");
    prefix_length = prefix ? strlen(prefix) : 0;
    number = (int)number_of("FAULTY_ERRNO", ENOSPC);
    deny_open = (int)number_of("FAULTY_OPEN", 0);
    deny_read = (int)number_of("FAULTY_READ", 0);
    jumping = (int)number_of("FAULTY_CLOCK", 0);
    allowed = number_of("FAULTY_AFTER", -1);
    const char *count = getenv("FAULTY_COUNT");
    if (count && *count) {
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
        int fd = real(count, O_RDWR | O_CLOEXEC);
        if (fd >= 0) {
            void *page = mmap(NULL, 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            written = page == MAP_FAILED ? NULL : page;
            close(fd);
        }
    }
}

static int ours(const char *path) {
    if (!prefix_length || !path) return 0;
    char whole[PATH_MAX];
    if (path[0] != '/') {
        if (!getcwd(whole, sizeof whole)) return 0;
        size_t at = strlen(whole);
        if (at + strlen(path) + 2 > sizeof whole) return 0;
        whole[at] = '/';
        strcpy(whole + at + 1, path);
        path = whole;
    }
    return strncmp(path, prefix, prefix_length) == 0;
}

static int ours_fd(int fd) {
    char name[64], path[PATH_MAX];
    if (!prefix_length) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return path[0] == '/' && strncmp(path, prefix, prefix_length) == 0;
}

/* How many of `count` bytes still fit; -1 with errno set where none does. */
static ssize_t fits(int fd, size_t count) {
    if (allowed < 0 || !written || !count || !ours_fd(fd)) return (ssize_t)count;
    int64_t before = atomic_fetch_add(written, (int64_t)count);
    if (before >= allowed) {
        errno = number;
        return -1;
    }
    return before + (int64_t)count > allowed ? (ssize_t)(allowed - before) : (ssize_t)count;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *bytes, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    ssize_t room = fits(fd, count);
    return room < 0 ? -1 : real(fd, bytes, (size_t)room);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    ssize_t room = fits(fd, count);
    return room < 0 ? -1 : real(fd, bytes, (size_t)room, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    ssize_t room = fits(fd, count);
    return room < 0 ? -1 : real(fd, bytes, (size_t)room, at);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    size_t total = 0;
    for (int i = 0; i < count; i++) total += pieces[i].iov_len;
    ssize_t room = fits(fd, total);
    if (room < 0) return -1;
    if ((size_t)room == total) return real(fd, pieces, count);
    return write(fd, pieces[0].iov_base, (size_t)room < pieces[0].iov_len ? (size_t)room : pieces[0].iov_len);
}

int posix_fallocate(int fd, off_t at, off_t length) {
    REAL(int, posix_fallocate, int, off_t, off_t);
    if (allowed >= 0 && written && atomic_load(written) >= allowed && ours_fd(fd)) return number;
    return real(fd, at, length);
}

int fsync(int fd) {
    REAL(int, fsync, int);
    if (number == EIO && allowed >= 0 && written && atomic_load(written) >= allowed && ours_fd(fd)) {
        errno = EIO; /* where a failing disk is mostly heard of */
        return -1;
    }
    return real(fd);
}

static int denied(const char *path, int writes) {
    if (((writes && deny_open) || (!writes && deny_read)) && ours(path)) {
        errno = number;
        return 1;
    }
    return 0;
}

#define OPENS(name)                                                                   \
    int name(const char *path, int flags, ...) {                                      \
        REAL(int, name, const char *, int, ...);                                      \
        va_list more;                                                                 \
        va_start(more, flags);                                                        \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;     \
        va_end(more);                                                                 \
        if (denied(path, (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT))) return -1; \
        return real(path, flags, mode);                                               \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                \
    int name(int folder, const char *path, int flags, ...) {                          \
        REAL(int, name, int, const char *, int, ...);                                 \
        va_list more;                                                                 \
        va_start(more, flags);                                                        \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;     \
        va_end(more);                                                                 \
        if (denied(path, (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT))) return -1; \
        return real(folder, path, flags, mode);                                       \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    struct stat there;
    if (stat(path, &there) != 0 && denied(path, 1)) return -1;
    return real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return denied(to, 1) ? -1 : real(from, to);
}

int symlink(const char *to, const char *path) {
    REAL(int, symlink, const char *, const char *);
    return denied(path, 1) ? -1 : real(to, path);
}

static int64_t jump(void) {
    return atomic_fetch_add(&looks, 1) % 2 ? -86400 : 3600;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real(which, now);
    if (jumping && result == 0 && which == CLOCK_REALTIME) now->tv_sec += jump();
    return result;
}

time_t time(time_t *place) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (place) *place = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    REAL(int, gettimeofday, struct timeval *restrict, void *restrict);
    int result = real(now, zone);
    if (jumping && result == 0) now->tv_sec += jump();
    return result;
}
