# The kernels of the CUDA backend as objects, pith_cuda: for the library, and for tests/cuda, which builds alone as well,
# without what the library stands on. The backend's other C files are the library's own (CMakeLists.txt). PITH_CUDA names
# the architectures: "90", "80;90". sm_90 is built as sm_90a, with what Hopper alone has; no other chip is a 9.0.
list(TRANSFORM PITH_CUDA REPLACE "^90$" "90a" OUTPUT_VARIABLE CMAKE_CUDA_ARCHITECTURES)
list(TRANSFORM CMAKE_CUDA_ARCHITECTURES APPEND "-real")
if(NOT CMAKE_CUDA_ARCHITECTURES MATCHES "^[0-9]+[af]?-real(;[0-9]+[af]?-real)*$")
    message(FATAL_ERROR "CUDA=${PITH_CUDA}: expected numbers of architectures, such as 90 or \"80;90\"")
endif()
set(CMAKE_CUDA_STANDARD 17)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

set(room ${CMAKE_CURRENT_LIST_DIR}/../src/cuda)
file(GLOB sources CONFIGURE_DEPENDS ${room}/*.cu)
add_library(pith_cuda OBJECT ${sources} ${room}/blas.c ${room}/quant_pack.c)
target_include_directories(pith_cuda PUBLIC ${room}/.. ${room}/../../include)
target_include_directories(pith_cuda SYSTEM PUBLIC ${CUDAToolkit_INCLUDE_DIRS})
target_compile_definitions(pith_cuda PRIVATE PITH_CUDA_LIBRARY_DIR="${CUDAToolkit_LIBRARY_DIR}")
# All warnings but -Wshadow, which the toolkit's own name `half` sets off, and -Wconversion, which what nvcc generates
# does. On the device too a multiply-add is fused where the source says fma and nowhere else.
target_compile_options(pith_cuda PUBLIC "$<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;-Werror=all-warnings;\
-Xcompiler=-Wall,-Wextra,-Werror,-ffp-contract=off,-fno-math-errno,-fno-trapping-math>")
