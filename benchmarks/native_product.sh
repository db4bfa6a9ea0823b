#!/bin/sh
# Builds native_product.c with the kernels and runs it on one core. usage: sh benchmarks/native_product.sh [core] [part of a kernel name]
set -eu
cd "$(dirname "$0")/.."
K=native/kernels B=build/native_product
mkdir -p $B
FLAGS="-O3 -ffp-contract=off -I$K"
for f in pack product_scalar table probe; do gcc $FLAGS -DLOBIT_AMX -std=gnu11 -c $K/$f.c -o $B/$f.o; done
gcc $FLAGS -mavx2 -c $K/product_avx2.c -o $B/product_avx2.o
for f in product_avx512 product_carry_avx512 probe_avx512; do
    gcc $FLAGS -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vpopcntdq -mavx512vnni -c $K/$f.c -o $B/$f.o
done
gcc $FLAGS -DLOBIT_AMX -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mamx-tile -mamx-int8 -c $K/product_amx.c -o $B/product_amx.o
gcc $FLAGS -std=gnu11 benchmarks/native_product.c $B/*.o -o $B/run
taskset -c "${1:-0}" $B/run ${2:+"$2"}
