/* The engine's own structures: nodes as added, values, tensors (memory), and the operators that run. */
#ifndef LOBIT_INTERNAL_H
#define LOBIT_INTERNAL_H

#include <pthread.h>

#include "checked.h"
#include "elementwise.h"
#include "engine.h"
#include "loops.h"

enum {
    LB_MAX_VALUES = 1 << 17,
    LB_MAX_THREADS = 1024,
    LB_ALIGN = 64,
    LB_TILE_ROWS = 96,
    LB_TILE_COLS = 64,
    LB_CARRIERS = 2,
    LB_MAX_PASSES = 16
};

typedef enum {
    LB_NODE_INPUT,
    LB_NODE_CHAIN,
    LB_NODE_THRESHOLD,
    LB_NODE_PRODUCT,
    LB_NODE_FLOAT,
    LB_NODE_MAX_POOL,
    LB_NODE_AVG_POOL,
    LB_NODE_ADD,
    LB_NODE_FLATTEN,
    LB_NODE_PAD,
    LB_NODE_CONCAT,
    LB_NODE_RESIZE
} lb_node_kind;

/* An operator as it was added. */
typedef struct {
    lb_node_kind kind;
    const char *op, *name;
    int in_count, out;
    const int *in; /* values */
    lb_window window;
    int64_t divisor;
    float fill; /* of padding */
    lb_resize_map resize;
    int step_count;
    lb_step *steps; /* operands are copies */
    int32_t *thresholds, *direction;
    lb_code weight_code;
    int64_t outputs;
    int16_t *weights;
    float *weights_f32, *bias;
    int fused;    /* runs inside its producer                                    */
    lb_form form; /* how it reads codes                                       */
    const lb_product_kernel *kernel;
    const char *reason;
} lb_node;

/* A value. Values that share memory (flatten) have one root; a root's pixels and channels are physical, channels last. */
typedef struct {
    lb_type type;
    int node, root;
    int64_t height, width, channels;
    int uses, output_uses, last_user; /* consumers and graph outputs; graph outputs; a consumer (of the root) */
    int wants;                        /* forms that consumers read, a mask             */
    int tensor;                       /* memory in its home form, -1 when fused away   */
    int tensors[LB_CARRIERS];         /* of codes: as bytes, as planes                 */
} lb_value;

/* Memory of a value or of a scratch image. */
typedef struct {
    lb_form form;
    int64_t sample_bytes, ld; /* bytes of a sample; elements (floats, bytes, words) of a pixel */
    int input, output;        /* the caller's buffer, or -1   */
    int first, last;          /* operators between which it is alive */
} lb_tensor;

typedef struct lb_op lb_op;

/* What an operator finds when it runs: the caller's batch, memory by tensor, and scratch memory of its thread. */
typedef struct {
    const lb_elementwise *elementwise;
    int64_t batch;
    uint8_t *const *tensors;
    void *const *outputs;
    uint8_t *scratch; /* of this thread */
    int thread, threads;
} lb_env;

typedef struct {
    lb_stage stage;
    int64_t pixels;
    lb_rows_out out; /* without its data */
} lb_stage_op;

/* Taps first .. last-1 of an axis lie inside the image. */
typedef struct {
    int64_t first, last;
} lb_span;

/* A patch matrix without a copy: row r of a product starts at row[r], its words at koff. Offsets count words of the (padded) image. */
typedef struct {
    int64_t out_height, out_width;
    int64_t stride_y, stride_x; /* words from one output row, column to the next */
    int64_t sample_words;
    int64_t depth;
    int32_t *koff;
    int32_t *class_y, *class_x; /* border class of an output row, column; NULL when there is one class */
    lb_span *spans_y, *spans_x; /* by class */
    int32_t classes_x, classes; /* class = class_y * classes_x + class_x */
} lb_patches;

typedef struct {
    int64_t x_offset; /* words from the image's start: plane             */
    int32_t coef;
    const uint8_t *weights; /* groups, each group_bytes long                   */
} lb_pass;

typedef struct {
    const lb_product_kernel *kernel;
    lb_patches patches;
    int64_t groups, group_words; /* words from group to group in a pixel */
    int64_t cols, outputs;       /* of one group, of all */
    size_t group_bytes;
    int pass_count;
    lb_pass *passes;
    int32_t *bias; /* (groups, classes, ldb) */
    int64_t ldb;
    int64_t tile_rows, tile_cols, tile_ld, group_ld;
    lb_stage_op epilogue; /* its input is the tile */
} lb_product;

typedef struct {
    lb_patches patches;
    int64_t groups, group_channels, cols, outputs, ldw;
    float *weights, *bias;
} lb_float_layer;

/* Copies an image into the middle of a larger one and starts each group of channels at a word of its own. */
typedef struct {
    int64_t height, width, padded_height, padded_width, top, left;
    int64_t planes, groups, group_channels, group_words, from_plane_words;
    int64_t from_pixel_words, to_pixel_words;
    int regroup;    /* 0: pixels have the same words in both images */
    uint32_t *fill; /* one padding pixel */
} lb_image_copy;

/* What one input adds to every row of a concatenation: a row of its own, or all rows of a flattened image. */
typedef struct {
    int tensor;
    int64_t ld, rows, channels; /* elements (floats, bytes, words) from row to row */
    int64_t at;                 /* its first channel there */
} lb_part;

typedef struct {
    int count, planes;
    lb_part *parts;
} lb_concat;

typedef struct {
    lb_resize_map map;
    int64_t height, width; /* of the input */
} lb_resize;

struct lb_op {
    void (*run)(const lb_op *op, const lb_env *env);
    const char *name, *what, *types, *kernel, *carrier, *reason;
    int in[2], out; /* tensors, -1 for none        */
    int to_output;  /* the caller's output, or -1  */
    int64_t weight_bytes, macs, scratch_bytes;
    int inexact;
    int64_t pixels, channels; /* of a sample of the output */
    lb_levels levels;         /* of the codes it copies    */
    lb_tensor from, to;       /* what in[0] and out are    */
    union {
        lb_stage_op stage;
        lb_product product;
        lb_float_layer layer;
        lb_image_copy copy;
        lb_concat concat;
        lb_resize resize;
        lb_pool pool;
    } as;
};

typedef struct lb_context {
    struct lb_context *next;
    int64_t batch;
    int threads;
    uint8_t *memory;
    int64_t scratch_at, scratch_bytes;
    int64_t *offsets;
    uint8_t **tensors;
} lb_context;

struct lb_program {
    lb_status status;
    char error[1024]; /* a name of the longest kind fits */
    int finished;
    lb_options options;
    const lb_elementwise *elementwise;
    lb_node *nodes;
    lb_value *values;
    int *outputs, *inputs;
    lb_tensor *tensors;
    lb_op *ops;
    int node_count, value_count, output_count, input_count, tensor_count, op_count;
    int node_room, value_room, input_room, tensor_room, op_room;
    int64_t scratch_bytes;
    void **kept; /* memory that lives as long as the program */
    int kept_count, kept_room;
    int64_t kept_bytes, memory_limit; /* of what is kept; 0: no limit */
    lb_context *idle;                 /* under the engine's lock */
};

/* memory.c: every block is owned by the program; NULL marks it LB_NO_MEMORY. */
void *lb_keep(lb_program *p, int64_t count, int64_t size); /* zeroed, 64-byte aligned */
void *lb_copy(lb_program *p, const void *data, int64_t count, int64_t size);
void lb_drop(lb_program *p, void *block);
char *lb_text(lb_program *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
int lb_refuse(lb_program *p, const char *format, ...) __attribute__((format(printf, 2, 3))); /* sets the error, returns -1 */
int lb_out_of_memory(lb_program *p);
/* One more element at the end of a growing array: its index, or -1. */
int lb_grow(lb_program *p, void *array, int *count, int *room, size_t size, int limit);

/* program.c */
enum { LB_ANY_RANK = 0, LB_VECTOR = 1, LB_IMAGE = 3 }; /* LB_IMAGE is (C, L) or (C, H, W) */
/* The value x, or NULL: a refusal where it does not exist, is none of `kinds` (a mask), has other axes or comes too late. */
const lb_value *lb_input_of(lb_program *p, const char *name, int x, int kinds, int rank);
lb_node *lb_new_node(lb_program *p, lb_node_kind kind, const char *op, const char *name, const int *in, int in_count);
/* Appends the value of a node; its pixels are those of `like` (-1: of its own type). */
int lb_new_value(lb_program *p, lb_node *node, const lb_type *type, int like);
/* Type of an image like x with other channels, after a window; -1 refuses. */
int lb_window_type(lb_program *p, const char *name, const lb_value *x, const lb_window *w, int64_t channels, lb_type *type);

/* codes.c */
lb_levels lb_levels_of(lb_code code);
int lb_code_valid(lb_code code);
int64_t lb_code_max_abs(lb_code code);
const char *lb_code_text(lb_program *p, lb_code code, int32_t zero);
const char *lb_type_text(lb_program *p, const lb_type *type);
int lb_is_code(lb_code code, int32_t value);
/* Whether real 0 is one of the codes of a type. */
int lb_zero_is_code(const lb_type *type);

/* carriers.c */
int lb_choose_carriers(lb_program *p);
/* Kernel, form and reason for a product. */
const lb_product_kernel *lb_product_choice(lb_program *p, const lb_node *node, lb_form *form, const char **reason);
lb_form lb_home_form(const lb_value *v);
/* Words of a group of channels, in one plane. */
int64_t lb_group_words(const lb_node *node, const lb_value *x, lb_form form);
/* Weights beyond a signed byte are two terms: w = v + 128 for unsigned8, w = 2v + 1 for odd8. */
int lb_dot8_terms(lb_code weight);

/* plan.c */
int lb_new_tensor(lb_program *p, lb_form form, int64_t pixels, int64_t ld);
lb_op *lb_new_op(lb_program *p, const char *name, const char *what, int in0, int in1, int out);
/* The tensor of a codes value in a form, of others in their own. */
int lb_tensor_in(lb_program *p, int value, lb_form form);
/* Gives a value its memory in its home form. */
int lb_place_value(lb_program *p, int value);
int lb_plan_stage(lb_program *p, const lb_node *node, lb_stage_op *stage);
lb_rows_out lb_rows_of(const lb_program *p, int tensor, lb_levels levels, int64_t channels);

/* plan_patches.c */
typedef struct {
    int tensor;
    int64_t plane_words, pixel_words; /* of the image that is read: words of a plane of a pixel, of a pixel */
    lb_patches patches;
} lb_image;
/* Finds the patches of a layer on the image of its input; adds a copy of the image first where padding or groups need one. When `classed`,
 * each set of taps that falls outside the image becomes a border class. */
int lb_plan_image(lb_program *p, const lb_node *node, lb_form form, int classed, lb_image *out);

int lb_plan_pad(lb_program *p, const lb_node *node);
int lb_plan_concat(lb_program *p, const lb_node *node); /* run_concat.c */
int lb_plan_resize(lb_program *p, const lb_node *node); /* run_resize.c */

int lb_plan_product(lb_program *p, const lb_node *node, const lb_node *epilogue);
int lb_plan_float(lb_program *p, const lb_node *node);
void lb_patch_rows(const lb_patches *patches, int64_t row0, int64_t rows, int64_t *row, int32_t *row_class);

/* run functions of the operators */
void lb_run_stage(const lb_op *op, const lb_env *env);
void lb_run_product(const lb_op *op, const lb_env *env);
void lb_run_float(const lb_op *op, const lb_env *env);
void lb_run_image(const lb_op *op, const lb_env *env);
void lb_run_concat(const lb_op *op, const lb_env *env);
void lb_run_resize(const lb_op *op, const lb_env *env);
void lb_run_max_pool(const lb_op *op, const lb_env *env);
void lb_run_avg_pool(const lb_op *op, const lb_env *env);
void lb_run_add(const lb_op *op, const lb_env *env);
void lb_run_pack(const lb_op *op, const lb_env *env);
void lb_run_load(const lb_op *op, const lb_env *env);
void lb_run_store(const lb_op *op, const lb_env *env);
/* Copies a tensor to (batch, C, H, W); codes become int16. */
void lb_store(const lb_tensor *from, const uint8_t *data, lb_levels levels, int64_t pixels, int64_t channels, void *to, const lb_env *env);
/* The share of `total` of a thread, in multiples of `unit`. */
void lb_share(int64_t total, int64_t unit, const lb_env *env, int64_t *from, int64_t *to);

/* team.c: threads that run one function together. */
typedef struct lb_team lb_team;
typedef void (*lb_job)(void *arg, int thread);
int lb_team_run(int threads, lb_job job, void *arg); /* 0, or -1 when no threads could be made */
typedef struct {
    int threads;
    _Atomic int arrived, turn;
} lb_barrier;
void lb_barrier_wait(lb_barrier *barrier);
void lb_engine_lock(void);
void lb_engine_unlock(void);

/* context.c: memory of a run. */
lb_context *lb_take_context(lb_program *p, int64_t batch, int threads);
void lb_give_context(lb_program *p, lb_context *context);
void lb_free_contexts(lb_program *p);

#endif
