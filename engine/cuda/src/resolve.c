/* Looks for NVIDIA's libraries and the functions in them; see lib.rs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tables.h"

extern void *kino_cuda_slots[] __attribute__((visibility("hidden")));

/* Opens a file in one of the folders of a pattern. */
static void *open_in(const char *pattern, const char *file) {
    char path[4096];
    glob_t found;
    void *library = 0;
    int length = snprintf(path, sizeof path, "%s/%s", pattern, file);
    if (length < 0 || (size_t)length >= sizeof path || glob(path, 0, 0, &found) != 0) return 0;
    for (size_t i = 0; i < found.gl_pathc && !library; i++)
        library = dlopen(found.gl_pathv[i], RTLD_NOW | RTLD_GLOBAL);
    globfree(&found);
    return library;
}

/* Opens a file in one of the folders that a variable of the environment lists, each with `below`. */
static void *open_of(const char *variable, const char *below, const char *file) {
    const char *rest = getenv(variable);
    void *library = 0;
    while (rest && *rest && !library) {
        char pattern[4096];
        size_t length = strcspn(rest, ":");
        if (length && length + strlen(below) < sizeof pattern) {
            memcpy(pattern, rest, length);
            strcpy(pattern + length, below);
            library = open_in(pattern, file);
        }
        rest += length + (rest[length] == ':');
    }
    return library;
}

static void *open_file(const char *file) {
    static const char *const usual[] = {"/usr/local/cuda/lib64", "/opt/cuda/lib64", "/usr/lib/wsl/lib"};
    void *library = dlopen(file, RTLD_NOW | RTLD_GLOBAL);
    if (!library) library = open_of("KINO_CUDA_LIBS", "", file);
    if (!library) library = open_of("CUDA_HOME", "/lib64", file);
    if (!library) library = open_of("CUDA_PATH", "/lib64", file);
    for (size_t i = 0; i < sizeof usual / sizeof *usual && !library; i++) library = open_in(usual[i], file);
    if (!library) library = open_of("VIRTUAL_ENV", "/lib/python3*/site-packages/nvidia/*/lib", file);
    return library;
}

/* A library, opened once. Two threads that open it at once get the same. */
static void *opened(int number) {
    static void *libraries[LIBRARIES];
    void *library = __atomic_load_n(&libraries[number], __ATOMIC_ACQUIRE);
    for (int i = 0; files[number][i] && !library; i++) library = open_file(files[number][i]);
    __atomic_store_n(&libraries[number], library, __ATOMIC_RELEASE);
    return library;
}

static long absent(void) { return 34; /* CUDA_ERROR_STUB_LIBRARY */ }
static const char *absent_text(void) { return "the library is not on this machine"; }

/* Functions that give a text; those of the driver take where to put it, and return an error. */
static int gives_text(const char *name) {
    return strstr(name, "GetStatusName") || strstr(name, "GetStatusString")
        || strcmp(name, "nvrtcGetErrorString") == 0;
}

__attribute__((visibility("hidden"))) void *kino_cuda_resolve(long number) {
    void *library = opened(library_of[number]);
    void *function = library ? dlsym(library, names[number]) : 0;
    if (!function) function = gives_text(names[number]) ? (void *)absent_text : (void *)absent;
    __atomic_store_n(&kino_cuda_slots[number], function, __ATOMIC_RELEASE);
    return function;
}
