// lobit._native.training: what quantizers add to a training step. Tensors come as addresses: lobit.quantizers.fused, the only user, checks them.
#include "training.h"

#include <stdexcept>

#include "../training/lstm.h"
#include "../training/training.h"

namespace nb = nanobind;

template <typename T> static T *at(uintptr_t address) { return reinterpret_cast<T *>(address); }

static void run(lb_training_kind kind, const lb_training &job, int isa, int threads) {
    if (job.count < 0 || job.columns < 8 || isa < LB_SCALAR || isa >= LB_ISA_COUNT || !lb_has_isa(static_cast<lb_isa>(isa)))
        throw std::invalid_argument("a training job has rows of at least 8 elements, and an instruction set that is here");
    nb::gil_scoped_release release;
    lb_training_run(kind, &job, static_cast<lb_isa>(isa), threads);
}

void add_training(nb::module_ &parent) {
    nb::module_ m = parent.def_submodule("training", "One pass over memory for each step of a quantizer in training.");
    m.def("use_threads", [](uintptr_t parallel) { lb_training_threads(reinterpret_cast<lb_gomp_parallel>(parallel)); });
    m.def("sign", [](uintptr_t x, uintptr_t out, int64_t count, int64_t columns, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.x = at<float>(x), job.out = at<float>(out);
        run(LB_TRAIN_SIGN, job, isa, threads);
    });
    m.def("inside", [](uintptr_t x, uintptr_t mask, int64_t count, int64_t columns, float lo, float hi, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.x = at<float>(x), job.out_mask = at<uint8_t>(mask), job.lo = lo, job.hi = hi;
        run(LB_TRAIN_INSIDE, job, isa, threads);
    });
    m.def("masked", [](uintptr_t g, uintptr_t mask, uintptr_t out, int64_t count, int64_t columns, float slope, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.g = at<float>(g), job.mask = at<uint8_t>(mask), job.out = at<float>(out),
        job.slope = slope;
        run(LB_TRAIN_MASKED, job, isa, threads);
    });
    m.def("round", [](uintptr_t x, uintptr_t step, int64_t step_stride, uintptr_t out, int64_t count, int64_t columns, float lo, float hi,
                      uintptr_t inside, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.x = at<float>(x), job.step = at<float>(step), job.step_stride = step_stride;
        job.out_inside = at<uint8_t>(inside), job.out = at<float>(out), job.lo = lo, job.hi = hi;
        run(LB_TRAIN_ROUND, job, isa, threads);
    });
    m.def("round_back", [](uintptr_t x, uintptr_t g, uintptr_t step, int64_t step_stride, uintptr_t out, uintptr_t sums, int64_t count,
                           int64_t columns, float lo, float hi, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.x = at<float>(x), job.g = at<float>(g), job.step = at<float>(step),
        job.step_stride = step_stride;
        job.out = at<float>(out), job.sums = at<double>(sums), job.lo = lo, job.hi = hi;
        run(LB_TRAIN_ROUND_BACK, job, isa, threads);
    });
    m.def("expand", [](uintptr_t codes, bool is_unsigned, uintptr_t step, int64_t step_stride, uintptr_t out, int64_t count,
                       int64_t columns, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.codes = at<void>(codes), job.codes_unsigned = is_unsigned;
        job.step = at<float>(step), job.step_stride = step_stride, job.out = at<float>(out);
        run(LB_TRAIN_EXPAND, job, isa, threads);
    });
    m.def("scale_back", [](uintptr_t g, uintptr_t codes, bool is_unsigned, uintptr_t step, int64_t step_stride, uintptr_t sums,
                           int64_t count, int64_t columns, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.g = at<float>(g), job.out = at<float>(g), job.codes = at<void>(codes),
        job.codes_unsigned = is_unsigned;
        job.step = at<float>(step), job.step_stride = step_stride, job.sums = at<double>(sums);
        run(LB_TRAIN_SCALE_BACK, job, isa, threads);
    });
    m.def("signs", [](uintptr_t mask, uintptr_t out, int64_t count, int64_t columns, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.mask = at<uint8_t>(mask), job.out = at<float>(out);
        run(LB_TRAIN_SIGNS, job, isa, threads);
    });
    m.def("bytes", [](uintptr_t x, uintptr_t out, uintptr_t others, int64_t count, int64_t columns, int lo, int hi, int isa, int threads) {
        lb_training job = {};
        job.count = count, job.columns = columns, job.x = at<float>(x), job.out_codes = at<uint8_t>(out), job.sums = at<double>(others);
        job.lo = static_cast<float>(lo), job.hi = static_cast<float>(hi);
        run(LB_TRAIN_BYTES, job, isa, threads);
    });
    m.def("pixels", [](uintptr_t x, uintptr_t out, uintptr_t others, int64_t images, int64_t channels, int64_t height, int64_t width,
                       int64_t above, int64_t before, int lo, int hi, int zero, int isa, int threads) {
        lb_training job = {};
        job.count = images * channels * height * width, job.columns = channels * height * width, job.channels = channels;
        job.width = width, job.border[0] = above, job.border[1] = before, job.x = at<float>(x), job.out_codes = at<uint8_t>(out);
        job.sums = at<double>(others), job.lo = static_cast<float>(lo), job.hi = static_cast<float>(hi), job.zero = zero;
        run(LB_TRAIN_PIXELS, job, isa, threads);
    });
    m.def("planes", [](uintptr_t x, uintptr_t offset, uintptr_t step, int64_t step_stride, uintptr_t shift, uintptr_t out, int64_t images,
                       int64_t pixels, int64_t channels, int isa, int threads) {
        lb_training job = {};
        job.count = images * pixels * channels, job.columns = pixels * channels, job.channels = channels, job.x = at<float>(x);
        job.offset = at<float>(offset), job.step = at<float>(step), job.step_stride = step_stride, job.shift = at<float>(shift);
        job.out = at<float>(out);
        run(LB_TRAIN_PLANES, job, isa, threads);
    });
    m.def("lstm", [](bool backward, int64_t rows, int64_t units, uintptr_t sigmoid, uintptr_t tanh, uintptr_t sums, uintptr_t gates,
                     uintptr_t inside, uintptr_t new_inside, uintptr_t cells, uintptr_t c, uintptr_t tanh_c, uintptr_t h, uintptr_t out,
                     int isa, int threads) {
        if (rows < 0 || units < 1 || isa < LB_SCALAR || isa >= LB_ISA_COUNT || !lb_has_isa(static_cast<lb_isa>(isa)))
            throw std::invalid_argument("a step has units, and an instruction set that is here");
        lb_lstm step = {};
        step.rows = rows, step.units = units, step.tables = {at<float>(sigmoid), at<float>(tanh)}, step.sums = at<float>(sums);
        step.gates = at<float>(gates), step.inside = at<uint8_t>(inside), step.new_inside = at<uint8_t>(new_inside),
        step.cells = at<float>(cells);
        step.c = at<float>(c), step.tanh_c = at<float>(tanh_c), step.h = at<float>(h), step.out = at<float>(out);
        nb::gil_scoped_release release;
        (backward ? lb_lstm_backward : lb_lstm_forward)(&step, static_cast<lb_isa>(isa), threads);
    });
}
