# Sources of the product kernels, with the flags of each instruction set. Nothing here contracts floating point or assumes an instruction set it did not test for.
set(LOBIT_KERNEL_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/pack.c
    ${CMAKE_CURRENT_LIST_DIR}/probe.c
    ${CMAKE_CURRENT_LIST_DIR}/product_scalar.c
    ${CMAKE_CURRENT_LIST_DIR}/table.c)
if(LOBIT_X86)
  list(APPEND LOBIT_KERNEL_SOURCES
       ${CMAKE_CURRENT_LIST_DIR}/probe_avx512.c
       ${CMAKE_CURRENT_LIST_DIR}/product_avx2.c
       ${CMAKE_CURRENT_LIST_DIR}/product_avx512.c
       ${CMAKE_CURRENT_LIST_DIR}/product_carry_avx512.c)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/product_avx2.c PROPERTIES COMPILE_OPTIONS "-mavx2")
  set_source_files_properties(
    ${CMAKE_CURRENT_LIST_DIR}/product_avx512.c ${CMAKE_CURRENT_LIST_DIR}/product_carry_avx512.c ${CMAKE_CURRENT_LIST_DIR}/probe_avx512.c
    PROPERTIES COMPILE_OPTIONS "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vpopcntdq;-mavx512vnni;-mprefer-vector-width=512")
  # AMX where the compiler knows it (gcc 11, clang 12); the table lists its kernels then.
  include(CheckCCompilerFlag)
  check_c_compiler_flag("-mamx-tile -mamx-int8" LOBIT_COMPILER_HAS_AMX)
  if(LOBIT_COMPILER_HAS_AMX AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    list(APPEND LOBIT_KERNEL_SOURCES ${CMAKE_CURRENT_LIST_DIR}/product_amx.c)
    set_source_files_properties(
      ${CMAKE_CURRENT_LIST_DIR}/product_amx.c
      PROPERTIES COMPILE_OPTIONS
                 "-DLOBIT_AMX;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mamx-tile;-mamx-int8;-mprefer-vector-width=512")
    set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/table.c PROPERTIES COMPILE_OPTIONS "-DLOBIT_AMX")
  endif()
endif()
