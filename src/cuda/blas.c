#include "cuda/blas.h"

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

// The library stays in memory once it was loaded: it registers itself with the driver.
static void *load(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); }

bool pith_cuda_blas_open(pith_cuda_blas *blas) {
    memset(blas, 0, sizeof *blas);
    blas->library = load(PITH_CUDA_BLAS_LIBRARY);
    if (!blas->library) blas->library = load(PITH_CUDA_LIBRARY_DIR "/" PITH_CUDA_BLAS_LIBRARY);
    if (!blas->library) return false;
    static const struct {
        const char *name;
        size_t offset;
    } functions[] = {
#define F(name) {"cublasLt" #name, offsetof(pith_cuda_blas, name)},
        PITH_CUDA_BLAS_FUNCTIONS(F)
#undef F
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *f = dlsym(blas->library, functions[i].name);
        if (!f) {
            pith_cuda_blas_close(blas);
            return false;
        }
        memcpy((char *)blas + functions[i].offset, &f, sizeof f);
    }
    return true;
}

void pith_cuda_blas_close(pith_cuda_blas *blas) {
    if (blas->library) dlclose(blas->library);
    memset(blas, 0, sizeof *blas);
}
