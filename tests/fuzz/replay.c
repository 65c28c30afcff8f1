/* SPDX-License-Identifier: Apache-2.0 */
/*
 * replay - feeds every file of the folder given to one fuzz target and reports in TAP. This is how
 * seeds and once found crashes are kept from coming back without a fuzzer at hand.
 */
#include "tests/fuzz/fuzz.h"
#include <dirent.h>
#include <stdio.h>

#define SEED_MAX (1024 * 1024)

/* Reads a whole file into a block of exactly its length; NULL when that is not possible. */
static char *read_file(const char *path, size_t *len)
{
    static char room[SEED_MAX];
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return NULL;
    *len = fread(room, 1, sizeof(room), file);
    bool is_whole = !ferror(file) && *len < sizeof(room);
    fclose(file);
    return is_whole ? exact_copy(slice_of(room, *len)) : NULL;
}

static bool replay(const char *folder, const char *name)
{
    char path[4096];
    size_t len = 0;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    char *seed = read_file(path, &len);
    if (seed == NULL)
        return false;
    printf("# %s\n", name); /* the last line of a run that ends here */
    fflush(stdout);
    LLVMFuzzerTestOneInput((const uint8_t *)seed, len);
    free(seed);
    return true;
}

static int is_seed(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **entries = NULL;
    int failed = 0;
    int count = argc == 2 ? scandir(argv[1], &entries, is_seed, alphasort) : -1;
    if (count <= 0) {
        printf("1..1\nnot ok 1 - give a folder with seeds\n");
        return 1;
    }
    printf("1..%d\n", count);
    for (int i = 0; i < count; i++) {
        bool is_fine = replay(argv[1], entries[i]->d_name);
        printf("%s %d - %s\n", is_fine ? "ok" : "not ok", i + 1, entries[i]->d_name);
        failed += !is_fine;
        free(entries[i]);
    }
    free(entries);
    return failed > 0;
}
