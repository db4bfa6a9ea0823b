# What the machine that is compiled for can have: LOBIT_X86 where the vector kernels exist. LOBIT_GENERIC leaves them out everywhere.
option(LOBIT_GENERIC "The scalar kernels alone, as on processors that have no kernels of their own" OFF)

if(NOT CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
  message(FATAL_ERROR "lobit is built with gcc or clang, not ${CMAKE_C_COMPILER_ID}: its kernels use their vector types, builtins and flags. Name one of them with CC and CXX.")
endif()
if(CMAKE_C_BYTE_ORDER STREQUAL "BIG_ENDIAN")
  message(FATAL_ERROR "lobit runs on little-endian processors only; ${CMAKE_SYSTEM_PROCESSOR} is big-endian. .lobit files themselves are the same everywhere.")
endif()

# What the compiler makes, not what the host is: -m32, cross compilers and names such as AMD64 have misled tests of the processor's name.
include(CheckCSourceCompiles)
check_c_source_compiles("#ifndef __x86_64__\n#error\n#endif\nint main(void) { return 0; }" LOBIT_COMPILES_FOR_X86)
if(LOBIT_GENERIC)
  add_compile_definitions(LOBIT_GENERIC)
  set(LOBIT_X86 OFF)
else()
  set(LOBIT_X86 ${LOBIT_COMPILES_FOR_X86})
endif()
