/* What the kernel files share with the table, and with each other: the packing of weights into blocks of columns. */
#ifndef LOBIT_PRODUCT_H
#define LOBIT_PRODUCT_H

#include "kernel.h"

/* [block][depth][nr] words: bits, and bytes where the kernel multiplies bytes. */
size_t lb_pack_size_16(int64_t cols, int64_t depth);
size_t lb_pack_size_64(int64_t cols, int64_t depth);
void lb_pack_16(void *dst, const uint32_t *src, int64_t cols, int64_t depth);
void lb_pack_64(void *dst, const uint32_t *src, int64_t cols, int64_t depth);

void lb_xor_popcount_scalar(const lb_product_args *a);
void lb_and_popcount_scalar(const lb_product_args *a);
void lb_dot8_scalar(const lb_product_args *a);

#if defined(LOBIT_X86)
/* [block of 16][depth][2 vectors][even, odd bytes as pairs of 16 bits][8 channels] */
size_t lb_pack_size_pairs_avx2(int64_t cols, int64_t depth);
void lb_pack_pairs_avx2(void *dst, const uint32_t *src, int64_t cols, int64_t depth);
void lb_xor_popcount_4x16_avx2(const lb_product_args *a);
void lb_and_popcount_4x16_avx2(const lb_product_args *a);
void lb_dot8_4x16_avx2(const lb_product_args *a);

void lb_dot8_vnni_6x64_avx512(const lb_product_args *a);
void lb_xor_carry_save_3x64_avx512(const lb_product_args *a);
void lb_and_carry_save_3x64_avx512(const lb_product_args *a);

#if defined(LOBIT_AMX) /* the compiler knows it */
/* [block of 64][depth rounded up to 16][64], zero behind the depth */
size_t lb_pack_size_amx(int64_t cols, int64_t depth);
void lb_pack_amx(void *dst, const uint32_t *src, int64_t cols, int64_t depth);
void lb_dot8_32x32_amx(const lb_product_args *a);
#endif
#endif

#endif
