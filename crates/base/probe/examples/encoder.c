/* A program that speaks for itself: an "encoder" that tells of each frame what it took.
 *
 *     cc -O2 -I include examples/encoder.c -o encoder && ./encoder 300 */
#include "triptych_probe.h"

/* Stands for work: its result is used, so that it is done. */
static uint64_t encode(uint64_t frame) {
    uint64_t hash = frame + 1;
    for (int i = 0; i < 20000; i++) hash = hash * 6364136223846793005u + 1442695040888963407u;
    return hash;
}

int main(int argc, char **argv) {
    uint64_t frames = argc > 1 ? strtoull(argv[1], NULL, 10) : 300;
    triptych_column columns[] = {
        { "number", TRIPTYCH_U64, "1", "frames before this one" },
        { "encode_ns", TRIPTYCH_I64, "ns", "from frame to access unit" },
        { "size_bytes", TRIPTYCH_U64, "B", "bytes of the access unit" },
        { "quality", TRIPTYCH_F64, "1", "0 to 1" },
        { "keyframe", TRIPTYCH_BOOL, "", "does it stand alone" },
    };
    triptych_table *table =
        triptych_declare("example-encoder", "1.0", "frames", "one row a frame", columns, 5, 8192);
    if (!table) fprintf(stderr, "encoder: nobody records (start triptych-agent first)\n");
    for (uint64_t frame = 0; frame < frames; frame++) {
        int64_t start = triptych_now_ns();
        uint64_t size = 1000 + encode(frame) % 9000;
        int64_t end = triptych_now_ns();
        triptych_value row[] = {
            { .u64 = frame }, { .i64 = end - start }, { .u64 = size }, { .f64 = (double)size / 10000 },
            { .boolean = frame % 60 == 0 },
        };
        triptych_emit(table, start, row);
    }
    printf("%llu frames, %llu lost\n", (unsigned long long)frames, (unsigned long long)triptych_lost(table));
    triptych_close(table);
    return 0;
}
