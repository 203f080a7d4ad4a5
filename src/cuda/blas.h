// cuBLASLt, found at run time: a program with the CUDA backend in it starts on machines that do not have the library.
//
// This header is shared with CUDA sources: valid C and C++.
#ifndef PITH_CUDA_BLAS_H
#define PITH_CUDA_BLAS_H

#include <stdbool.h>

#include <cublasLt.h>

// The functions of cublasLt.h that are called here, without their prefix.
#define PITH_CUDA_BLAS_FUNCTIONS(F)                                                                                    \
    F(Create)                                                                                                          \
    F(Destroy)                                                                                                         \
    F(Matmul)                                                                                                          \
    F(MatmulAlgoGetHeuristic)                                                                                          \
    F(MatmulDescCreate)                                                                                                \
    F(MatmulDescDestroy)                                                                                               \
    F(MatmulDescSetAttribute)                                                                                          \
    F(MatmulPreferenceCreate)                                                                                          \
    F(MatmulPreferenceDestroy)                                                                                         \
    F(MatmulPreferenceSetAttribute)                                                                                    \
    F(MatrixLayoutCreate)                                                                                              \
    F(MatrixLayoutDestroy)

typedef struct pith_cuda_blas {
    void *library;
#define F(name) __typeof__(&cublasLt##name) name;
    PITH_CUDA_BLAS_FUNCTIONS(F)
#undef F
} pith_cuda_blas;

#ifdef __cplusplus
extern "C" {
#endif

// Looks where the system's loader looks (LD_LIBRARY_PATH, ldconfig), then in the toolkit that Pith was built with. The
// library's version is the one of the header that Pith was built with: PITH_CUDA_BLAS_LIBRARY. False when it is not
// there or lacks a function; nothing is to be closed then.
#define PITH_CUDA_BLAS_LIBRARY "libcublasLt.so." PITH_CUDA_BLAS_TEXT(CUBLAS_VER_MAJOR)
#define PITH_CUDA_BLAS_TEXT(x) PITH_CUDA_BLAS_TEXT_(x)
#define PITH_CUDA_BLAS_TEXT_(x) #x
bool pith_cuda_blas_open(pith_cuda_blas *);
void pith_cuda_blas_close(pith_cuda_blas *);

#ifdef __cplusplus
}
#endif

#endif
