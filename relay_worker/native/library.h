/* A C library that an extension module of somebody else's has loaded, called without that module. */

#ifndef RELAY_LIBRARY_H
#define RELAY_LIBRARY_H

#include <dlfcn.h>
#include <stddef.h>

/* Find the functions of these names that the module in `file` calls, there or in what it is linked with: whether all are found.
 * A module that is not loaded has none. (dlopen(3), dlsym(3)) */
static inline int
find_functions(const char *file, const char *const *symbols, size_t count, void **found)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_NOLOAD);
    for (size_t index = 0; library != NULL && index < count; index++)
        if ((found[index] = dlsym(library, symbols[index])) == NULL)
            return 0;
    return library != NULL;
}

#endif
