/*
 * A disk that is full while the file $FULL_DISK exists: to make a file longer whose path contains
 * $FULL_DISK_FILES fails with ENOSPC. For LD_PRELOAD; it needs no mount, and so no root.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd, off_t end) {
    const char *marker = getenv("FULL_DISK"), *files = getenv("FULL_DISK_FILES");
    char link[64], path[4096];
    struct stat found;
    if (marker == NULL || files == NULL || access(marker, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = '\0';
    return strstr(path, files) != NULL && fstat(fd, &found) == 0 && end > found.st_size;
}

static off_t bytes(const struct iovec *parts, int count) {
    off_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += parts[i].iov_len;
    return sum;
}

/* Each function in its two spellings; on 64-bit systems they are the same. */
#define TWICE(WRAP, name) WRAP(name) WRAP(name##64)

#define PWRITE(name)                                                               \
    ssize_t name(int fd, const void *data, size_t size, off_t at) {                \
        ssize_t (*real)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, #name); \
        if (!is_full(fd, at + size))                                               \
            return real(fd, data, size, at);                                       \
        errno = ENOSPC;                                                            \
        return -1;                                                                 \
    }

#define PWRITEV(name)                                                              \
    ssize_t name(int fd, const struct iovec *parts, int count, off_t at) {         \
        ssize_t (*real)(int, const struct iovec *, int, off_t) = dlsym(RTLD_NEXT, #name); \
        if (!is_full(fd, at + bytes(parts, count)))                                \
            return real(fd, parts, count, at);                                     \
        errno = ENOSPC;                                                            \
        return -1;                                                                 \
    }

/* Unlike the others, it returns the error. */
#define POSIX_FALLOCATE(name)                                                      \
    int name(int fd, off_t at, off_t size) {                                       \
        int (*real)(int, off_t, off_t) = dlsym(RTLD_NEXT, #name);                  \
        return is_full(fd, at + size) ? ENOSPC : real(fd, at, size);               \
    }

#define FALLOCATE(name)                                                            \
    int name(int fd, int mode, off_t at, off_t size) {                             \
        int (*real)(int, int, off_t, off_t) = dlsym(RTLD_NEXT, #name);             \
        if (!is_full(fd, at + size))                                               \
            return real(fd, mode, at, size);                                       \
        errno = ENOSPC;                                                            \
        return -1;                                                                 \
    }

#define FTRUNCATE(name)                                                            \
    int name(int fd, off_t size) {                                                 \
        int (*real)(int, off_t) = dlsym(RTLD_NEXT, #name);                         \
        if (!is_full(fd, size))                                                    \
            return real(fd, size);                                                 \
        errno = ENOSPC;                                                            \
        return -1;                                                                 \
    }

TWICE(PWRITE, pwrite)
TWICE(PWRITEV, pwritev)
TWICE(POSIX_FALLOCATE, posix_fallocate)
TWICE(FALLOCATE, fallocate)
TWICE(FTRUNCATE, ftruncate)
