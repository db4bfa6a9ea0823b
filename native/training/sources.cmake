# Sources of what quantizers add to a training step. The loops are compiled once per instruction set, from one text (loops.inc.h).
set(LOBIT_TRAINING_SOURCES ${CMAKE_CURRENT_LIST_DIR}/training.c ${CMAKE_CURRENT_LIST_DIR}/loops_scalar.c)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/loops_scalar.c PROPERTIES COMPILE_OPTIONS "-fno-trapping-math")
if(LOBIT_X86)
  list(APPEND LOBIT_TRAINING_SOURCES ${CMAKE_CURRENT_LIST_DIR}/loops_avx2.c ${CMAKE_CURRENT_LIST_DIR}/loops_avx512.c)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/loops_avx2.c PROPERTIES COMPILE_OPTIONS "-fno-trapping-math;-mavx2")
  set_source_files_properties(
    ${CMAKE_CURRENT_LIST_DIR}/loops_avx512.c
    PROPERTIES COMPILE_OPTIONS "-fno-trapping-math;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mprefer-vector-width=512")
endif()
