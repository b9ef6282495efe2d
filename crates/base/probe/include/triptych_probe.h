/* In-program instrumentation for C programs: a program declares tables once and emits rows of numbers into rings in
 * shared memory, which the machine's triptych-agent reads. To emit takes no lock and makes no system call; when a ring
 * is full the row is counted as lost, never waited for.
 *
 *     triptych_column columns[] = {
 *         { "encode_ns", TRIPTYCH_I64, "ns", "from frame to access unit" },
 *         { "keyframe", TRIPTYCH_BOOL, "", "does it stand alone" },
 *     };
 *     triptych_table *frames = triptych_declare("my-encoder", "1.0", "frames", "one row a frame", columns, 2, 8192);
 *     triptych_emit(frames, triptych_now_ns(), (triptych_value[]){ { .i64 = 1200000 }, { .boolean = 1 } });
 *     triptych_close(frames);
 *
 * triptych_declare gives NULL where nobody records (or the table cannot be made: see errno), and every function takes
 * NULL and does nothing: a program needs no other case for it. A table is used by one thread at a time.
 *
 * C11 or C++20, Linux, no library. For other languages: cc -shared -fPIC -DTRIPTYCH_PROBE_API= -x c triptych_probe.h
 * The bytes of the rings: docs/formats/probe.md. */
#ifndef TRIPTYCH_PROBE_H
#define TRIPTYCH_PROBE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Before every function; empty, they are exported. */
#ifndef TRIPTYCH_PROBE_API
#define TRIPTYCH_PROBE_API static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TRIPTYCH_I64 = 1, TRIPTYCH_U64 = 2, TRIPTYCH_F64 = 3, TRIPTYCH_BOOL = 4 } triptych_type;

/* Names: 1 to 63 of a-z, 0-9, '_' and '-'; unit: ns, B, Hz, %, 1 for a count, "" for a flag. */
typedef struct {
    const char *name;
    int32_t type; /* triptych_type */
    const char *unit;
    const char *description;
} triptych_column;

/* One cell, of the type that its column was declared with. */
typedef union {
    int64_t i64;
    uint64_t u64;
    double f64;
    uint64_t boolean; /* 0 or 1 */
} triptych_value;

typedef struct {
    uint64_t *words; /* the whole file */
    uint64_t *rows;
    uint64_t mask; /* capacity - 1 */
    uint64_t head, tail; /* own index; the reader's, as last seen */
    size_t len;
    uint32_t width; /* words of a row, the instant included */
    int file;
    char path[512];
} triptych_table;

enum {
    TRIPTYCH_HEAD = 64, TRIPTYCH_LOST = 65, TRIPTYCH_TAIL = 72, TRIPTYCH_TAIL_CHECK = 73, TRIPTYCH_ATTACHED = 74,
    TRIPTYCH_COLUMNS = 640, TRIPTYCH_COLUMN = 256, TRIPTYCH_MAX_COLUMNS = 256, TRIPTYCH_MAX_CAPACITY = 1 << 24,
};

/* Now, on the clock that stamps rows: CLOCK_MONOTONIC in nanoseconds. */
TRIPTYCH_PROBE_API int64_t triptych_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* 1 and the folder in which rings are read; 0 where no agent has made one. */
TRIPTYCH_PROBE_API int triptych_folder(char *folder, size_t len) {
    struct stat st;
    const char *named = getenv("TRIPTYCH_PROBES");
    if (named && *named) return snprintf(folder, len, "%s", named) < (int)len && !stat(folder, &st) && S_ISDIR(st.st_mode);
    if (snprintf(folder, len, "/dev/shm/triptych-%u", (unsigned)getuid()) >= (int)len || lstat(folder, &st)) return 0;
    return S_ISDIR(st.st_mode) && st.st_uid == getuid() && !(st.st_mode & 022);
}

/* Copies text as a part of a file's name. */
TRIPTYCH_PROBE_API void triptych_file_name(char *out, size_t len, const char *text) {
    size_t i;
    for (i = 0; i + 1 < len && text[i]; i++) {
        char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
        out[i] = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ? c : '-';
    }
    out[i] = 0;
}

TRIPTYCH_PROBE_API void triptych_text(char *at, size_t len, const char *text) {
    if (text) snprintf(at, len, "%s", text);
}

/* 1 while an agent reads the folder in which the file `path` is. */
TRIPTYCH_PROBE_API int triptych_is_read(const char *path) {
    char lock[600];
    const char *slash = strrchr(path, '/');
    int file, read;
    if (!slash || snprintf(lock, sizeof lock, "%.*s/agent.lock", (int)(slash - path), path) >= (int)sizeof lock) return 0;
    file = open(lock, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    read = flock(file, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    close(file);
    return read;
}

/* Closes the table. With an agent, what is left in it is read, and the file is the agent's to take away. */
TRIPTYCH_PROBE_API void triptych_close(triptych_table *t) {
    if (!t) return;
    if (t->words) {
        if (!__atomic_load_n(&t->words[TRIPTYCH_ATTACHED], __ATOMIC_ACQUIRE) && !triptych_is_read(t->path))
            unlink(t->path);
        munmap(t->words, t->len);
    }
    if (t->file >= 0) close(t->file);
    free(t);
}

/* Declares a table of `count` columns; `capacity` in rows is rounded up to a power of two. See above. */
TRIPTYCH_PROBE_API triptych_table *triptych_declare(const char *program, const char *version, const char *table,
        const char *description, const triptych_column *columns, uint32_t count, uint32_t capacity) {
    char folder[300], name[64], temporary[512];
    uint32_t rows = 1, i, header = TRIPTYCH_COLUMNS + count * TRIPTYCH_COLUMN, numbers[5];
    unsigned char *bytes;
    triptych_table *t;
    int failure;
    if (!triptych_folder(folder, sizeof folder)) return NULL;
    if (!program || !table || strlen(table) > 63 || count > TRIPTYCH_MAX_COLUMNS || capacity > TRIPTYCH_MAX_CAPACITY) {
        errno = EINVAL;
        return NULL;
    }
    while (rows < capacity) rows *= 2;
    triptych_file_name(name, sizeof name, *program ? program : "program");
    t = (triptych_table *)calloc(1, sizeof *t);
    if (!t) return NULL;
    t->file = -1;
    t->width = count + 1;
    t->mask = rows - 1;
    t->len = header + (size_t)rows * t->width * 8;
    if (snprintf(t->path, sizeof t->path, "%s/%s.%ld.%s.ring", folder, name, (long)getpid(), table) >= (int)sizeof t->path
        || snprintf(temporary, sizeof temporary, "%s/.%s.%ld.%s.new", folder, name, (long)getpid(), table)
            >= (int)sizeof temporary) {
        free(t);
        errno = ENAMETOOLONG;
        return NULL;
    }
    t->file = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (t->file < 0) goto fail;
    if (ftruncate(t->file, (off_t)t->len) || flock(t->file, LOCK_SH | LOCK_NB)) goto fail;
    bytes = (unsigned char *)mmap(NULL, t->len, PROT_READ | PROT_WRITE, MAP_SHARED, t->file, 0);
    if (bytes == MAP_FAILED) goto fail;
    t->words = (uint64_t *)(void *)bytes;
    t->rows = (uint64_t *)(void *)(bytes + header);
    memcpy(bytes, "TRIPRING", 8);
    numbers[0] = 1, numbers[1] = header, numbers[2] = count, numbers[3] = rows, numbers[4] = (uint32_t)getpid();
    memcpy(bytes + 8, numbers, sizeof numbers);
    triptych_text((char *)bytes + 64, 64, name);
    triptych_text((char *)bytes + 128, 64, version);
    triptych_text((char *)bytes + 192, 64, table);
    triptych_text((char *)bytes + 256, 256, description);
    t->words[TRIPTYCH_TAIL_CHECK] = ~(uint64_t)0;
    for (i = 0; i < count; i++) {
        unsigned char *c = bytes + TRIPTYCH_COLUMNS + (size_t)i * TRIPTYCH_COLUMN;
        triptych_text((char *)c, 64, columns[i].name);
        c[64] = (unsigned char)columns[i].type;
        triptych_text((char *)c + 72, 24, columns[i].unit);
        triptych_text((char *)c + 96, 160, columns[i].description);
    }
    /* It appears under its name only when it is whole. */
    if (!rename(temporary, t->path)) return t;
fail:
    failure = errno;
    unlink(temporary);
    triptych_close(t);
    errno = failure;
    return NULL;
}

/* Writes one row: the instant, then one value per column. */
TRIPTYCH_PROBE_API void triptych_emit(triptych_table *t, int64_t at_ns, const triptych_value *values) {
    uint64_t *row, tail;
    uint32_t i;
    if (!t) return;
    if (t->head - t->tail > t->mask) {
        /* The reader writes both words with one system call, which need not be one store. */
        tail = __atomic_load_n(&t->words[TRIPTYCH_TAIL], __ATOMIC_ACQUIRE);
        if (__atomic_load_n(&t->words[TRIPTYCH_TAIL_CHECK], __ATOMIC_ACQUIRE) == ~tail) t->tail = tail;
        if (t->head - t->tail > t->mask) {
            __atomic_fetch_add(&t->words[TRIPTYCH_LOST], 1, __ATOMIC_RELAXED);
            return;
        }
    }
    row = t->rows + (t->head & t->mask) * t->width;
    __atomic_store_n(&row[0], (uint64_t)at_ns, __ATOMIC_RELAXED);
    for (i = 1; i < t->width; i++) __atomic_store_n(&row[i], values[i - 1].u64, __ATOMIC_RELAXED);
    __atomic_store_n(&t->words[TRIPTYCH_HEAD], ++t->head, __ATOMIC_RELEASE);
}

/* Rows lost so far because the ring was full. */
TRIPTYCH_PROBE_API uint64_t triptych_lost(const triptych_table *t) {
    return t ? __atomic_load_n(&t->words[TRIPTYCH_LOST], __ATOMIC_RELAXED) : 0;
}

#ifdef __cplusplus
}
#endif
#endif
