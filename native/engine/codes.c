/* Code types: what a stored byte or bit plane means. */
#include "internal.h"

static const char *const names[] = {"unsigned", "signed", "odd", "ternary", "log2"};

int lb_code_valid(lb_code code) {
    switch (code.alphabet) {
    case LB_UNSIGNED:
    case LB_ODD: return code.bits >= 1 && code.bits <= 8;
    case LB_SIGNED: return code.bits >= 2 && code.bits <= 8;
    case LB_TERNARY: return code.bits == 2;
    case LB_LOG2: return code.bits >= 2 && code.bits <= 4;
    }
    return 0;
}

lb_levels lb_levels_of(lb_code code) {
    lb_levels levels = {code.bits, 1, 0, (1 << code.bits) - 1, 0};
    if (code.alphabet == LB_SIGNED) levels.plane_add = levels.lo = -(1 << (code.bits - 1)), levels.hi = -levels.lo - 1;
    if (code.alphabet == LB_ODD) levels.spacing = 2, levels.lo = -levels.hi;
    if (code.alphabet == LB_TERNARY) levels.plane_add = levels.lo = -1, levels.hi = 1;
    if (code.alphabet == LB_LOG2) levels.hi = 1 << ((1 << (code.bits - 1)) - 2), levels.lo = -levels.hi;
    return levels;
}

int64_t lb_code_max_abs(lb_code code) {
    lb_levels levels = lb_levels_of(code);
    return lb_max64(-levels.lo, levels.hi);
}

int lb_is_code(lb_code code, int32_t value) {
    lb_levels levels = lb_levels_of(code);
    int32_t size = value < 0 ? -value : value;
    if (value < levels.lo || value > levels.hi) return 0;
    return code.alphabet == LB_LOG2 ? !(size & (size - 1)) : levels.spacing == 1 || value & 1;
}

int lb_zero_is_code(const lb_type *type) { return type->code.alphabet != LB_ODD; }

const char *lb_code_text(lb_program *p, lb_code code, int32_t zero) {
    return zero ? lb_text(p, "%s%d zero %d", names[code.alphabet], code.bits, zero) : lb_text(p, "%s%d", names[code.alphabet], code.bits);
}

const char *lb_type_text(lb_program *p, const lb_type *type) {
    return type->kind == LB_F32 ? "f32" : type->kind == LB_I32 ? "i32" : lb_code_text(p, type->code, type->zero);
}
