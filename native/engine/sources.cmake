# Sources of the engine. The elementwise loops are compiled once per instruction set, from one text (elementwise.inc.h).
set(LOBIT_ENGINE_SOURCES)
foreach(
  name
  carriers
  codes
  context
  elementwise_scalar
  float_layer
  loops
  memory
  plan
  plan_patches
  plan_product
  plan_stage
  program
  program_move
  run
  run_concat
  run_copy
  run_product
  run_resize
  run_rows
  team)
  list(APPEND LOBIT_ENGINE_SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.c)
endforeach()
# Floats are never trapped here; without the promise the compiler would not turn comparisons into vectors. No result depends on it.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/elementwise_scalar.c PROPERTIES COMPILE_OPTIONS "-fno-trapping-math")
if(LOBIT_X86)
  list(APPEND LOBIT_ENGINE_SOURCES ${CMAKE_CURRENT_LIST_DIR}/elementwise_avx2.c ${CMAKE_CURRENT_LIST_DIR}/elementwise_avx512.c)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/elementwise_avx2.c PROPERTIES COMPILE_OPTIONS "-fno-trapping-math;-mavx2")
  set_source_files_properties(
    ${CMAKE_CURRENT_LIST_DIR}/elementwise_avx512.c
    PROPERTIES COMPILE_OPTIONS "-fno-trapping-math;-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mprefer-vector-width=512")
endif()
