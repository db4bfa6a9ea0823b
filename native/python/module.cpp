// lobit._native: the engine's C ABI for Python. lobit.runtime is its only user and checks arguments; what is checked here keeps memory safe.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <stdexcept>

#include "engine.h"
extern "C" {
#include "loops.h"
#include "probe.h"
}
#include "training.h"

namespace nb = nanobind;

template <typename T> using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<nb::c_contig, nb::device::cpu>;
using Window = std::vector<int64_t>;                       // kernel 2, stride 2, padding 4, dilation 2, groups
using Step = std::tuple<int, std::optional<Array<float>>>; // operation, operand
using Code = std::tuple<int, int>;                         // alphabet, bits

static lb_window window_from(const Window &w) {
    if (w.size() != 11) throw std::invalid_argument("a window is 11 integers");
    return {{w[0], w[1]}, {w[2], w[3]}, {w[4], w[5], w[6], w[7]}, {w[8], w[9]}, w[10]};
}

static lb_code code_from(const Code &code) { return {static_cast<lb_alphabet>(std::get<0>(code)), std::get<1>(code)}; }

class Program {
  public:
    explicit Program(int64_t memory_limit) : program_(lb_program_new()) {
        if (!program_) throw std::bad_alloc();
        lb_set_memory_limit(program_, memory_limit);
    }
    ~Program() { lb_program_free(program_); }
    Program(const Program &) = delete;
    Program &operator=(const Program &) = delete;

    int input(const std::string &name, const std::vector<int64_t> &shape) {
        int value = checked(lb_add_input(program_, name.c_str(), static_cast<int>(shape.size()), shape.data()));
        input_values_.push_back(value);
        return value;
    }

    int chain(const std::string &name, int x, const std::vector<Step> &steps, const std::optional<Code> &code, int zero) {
        std::vector<lb_step> list;
        for (const auto &[op, operand] : steps)
            list.push_back(
                {static_cast<lb_step_op>(op), operand ? operand->data() : nullptr, operand ? static_cast<int64_t>(operand->size()) : 0});
        lb_code to = code ? code_from(*code) : lb_code{};
        return checked(lb_add_chain(program_, name.c_str(), x, list.data(), static_cast<int>(list.size()), code ? &to : nullptr, zero));
    }

    int threshold(const std::string &name, int x, const Code &code, int zero, Array<int32_t> thresholds, Array<int32_t> direction) {
        lb_type type = type_of(x);
        int64_t levels = std::get<0>(code) == LB_TERNARY ? 2 : (int64_t{1} << std::get<1>(code)) - 1;
        need(direction.size() == static_cast<size_t>(type.shape[0]), "direction has the wrong size");
        need(thresholds.size() == static_cast<size_t>(type.shape[0] * levels), "thresholds have the wrong size");
        return checked(lb_add_threshold(program_, name.c_str(), x, code_from(code), zero, thresholds.data(), direction.data()));
    }

    int linear(const std::string &name, int x, const Code &code, Array<int16_t> weights) {
        int64_t outputs = weight_rows(x, weights.ndim() == 2, weights.size(), weights.ndim() ? weights.shape(0) : 0, nullptr);
        return checked(lb_add_linear(program_, name.c_str(), x, code_from(code), outputs, weights.data()));
    }

    int conv2d(const std::string &name, int x, const Code &code, const Window &window, Array<int16_t> weights) {
        lb_window w = window_from(window);
        int64_t outputs = weight_rows(x, weights.ndim() == 4, weights.size(), weights.ndim() ? weights.shape(0) : 0, &w);
        return checked(lb_add_conv2d(program_, name.c_str(), x, code_from(code), outputs, &w, weights.data()));
    }

    int linear_f32(const std::string &name, int x, Array<float> weights, const std::optional<Array<float>> &bias) {
        int64_t outputs = weight_rows(x, weights.ndim() == 2, weights.size(), weights.ndim() ? weights.shape(0) : 0, nullptr);
        return checked(lb_add_linear_f32(program_, name.c_str(), x, outputs, weights.data(), bias_of(bias, outputs)));
    }

    int conv2d_f32(const std::string &name, int x, const Window &window, Array<float> weights, const std::optional<Array<float>> &bias) {
        lb_window w = window_from(window);
        int64_t outputs = weight_rows(x, weights.ndim() == 4, weights.size(), weights.ndim() ? weights.shape(0) : 0, &w);
        return checked(lb_add_conv2d_f32(program_, name.c_str(), x, outputs, &w, weights.data(), bias_of(bias, outputs)));
    }

    int max_pool2d(const std::string &name, int x, const Window &window) {
        lb_window w = window_from(window);
        return checked(lb_add_max_pool2d(program_, name.c_str(), x, &w));
    }

    int avg_pool2d(const std::string &name, int x, const Window &window, int64_t divisor) {
        lb_window w = window_from(window);
        return checked(lb_add_avg_pool2d(program_, name.c_str(), x, &w, divisor));
    }

    int add(const std::string &name, int a, int b) { return checked(lb_add_add(program_, name.c_str(), a, b)); }
    int flatten(const std::string &name, int x) { return checked(lb_add_flatten(program_, name.c_str(), x)); }

    int pad2d(const std::string &name, int x, const std::vector<int64_t> &padding, float value) {
        need(padding.size() == 4, "padding is 4 integers");
        return checked(lb_add_pad2d(program_, name.c_str(), x, padding.data(), value));
    }

    int concat(const std::string &name, const std::vector<int> &x) {
        return checked(lb_add_concat(program_, name.c_str(), x.data(), static_cast<int>(x.size())));
    }

    int resize2d(const std::string &name, int x, Array<int32_t> rows, Array<int32_t> columns,
                 const std::optional<Array<float>> &row_weights, const std::optional<Array<float>> &column_weights) {
        need(rows.ndim() == 1 && columns.ndim() == 1, "rows and columns are vectors");
        need(row_weights.has_value() == column_weights.has_value(), "rows and columns both have weights, or none");
        need(!row_weights || (row_weights->size() == rows.size() && column_weights->size() == columns.size()), "a weight for each");
        lb_resize_map map = {static_cast<int64_t>(rows.size()),
                             static_cast<int64_t>(columns.size()),
                             rows.data(),
                             columns.data(),
                             row_weights ? row_weights->data() : nullptr,
                             column_weights ? column_weights->data() : nullptr};
        return checked(lb_add_resize2d(program_, name.c_str(), x, &map));
    }

    void finish(const std::vector<int> &outputs, int isa, int prefer) {
        lb_options options = {static_cast<lb_isa>(isa), static_cast<lb_prefer>(prefer)};
        lb_set_outputs(program_, outputs.data(), static_cast<int>(outputs.size()));
        lb_finish(program_, &options);
        checked(0);
        outputs_ = outputs;
    }

    void run(int64_t batch, int threads, const std::vector<Array<float>> &inputs, const std::vector<Out> &outputs,
             const std::vector<std::tuple<int, Out>> &taps,
             const std::optional<nb::ndarray<double, nb::c_contig, nb::device::cpu>> &seconds) {
        need(batch >= 0, "a batch is not negative");
        need(inputs.size() == input_values_.size() && outputs.size() == outputs_.size(), "inputs or outputs are missing");
        std::vector<const float *> in;
        std::vector<void *> out;
        std::vector<lb_tap> tapped;
        for (size_t i = 0; i < inputs.size(); i++) {
            need(inputs[i].size() == count(input_values_[i], batch), "an input has the wrong size");
            in.push_back(inputs[i].data());
        }
        for (size_t i = 0; i < outputs.size(); i++) out.push_back(place(outputs_[i], outputs[i], batch));
        for (const auto &[value, array] : taps) {
            need(lb_value_stored(program_, value), "a tapped value is not stored");
            tapped.push_back({value, place(value, array, batch)});
        }
        need(!seconds || seconds->size() == static_cast<size_t>(lb_op_count(program_)), "seconds has the wrong size");
        lb_call call = {
            batch, threads, in.data(), out.data(), tapped.data(), static_cast<int>(tapped.size()), seconds ? seconds->data() : nullptr};
        lb_status status;
        {
            nb::gil_scoped_release release;
            status = lb_run(program_, &call);
        }
        if (status == LB_NO_MEMORY) throw std::bad_alloc();
        need(status != LB_NO_THREADS, "the system refuses more threads");
        need(status == LB_OK, "the program cannot run like this");
    }

    bool stored(int value) const { return lb_value_stored(program_, value); }

    nb::list operators() const {
        nb::list list;
        for (int i = 0; i < lb_op_count(program_); i++) {
            lb_op_info info;
            lb_get_op_info(program_, i, &info);
            nb::dict row;
            row["name"] = info.name;
            row["op"] = info.op;
            row["types"] = info.types;
            row["kernel"] = info.kernel;
            row["carrier"] = info.carrier;
            row["reason"] = info.reason;
            row["weight_bytes"] = info.weight_bytes;
            row["macs"] = info.macs;
            row["inexact"] = static_cast<bool>(info.inexact);
            list.append(row);
        }
        return list;
    }

  private:
    static void need(bool holds, const char *what) {
        if (!holds) throw std::invalid_argument(what);
    }

    int checked(int value) const {
        if (lb_program_status(program_) == LB_NO_MEMORY) throw std::bad_alloc();
        need(value >= 0 && lb_program_status(program_) == LB_OK, lb_program_error(program_));
        return value;
    }

    lb_type type_of(int value) const {
        lb_type type;
        need(lb_value_type(program_, value, &type) == 0, "no such value");
        return type;
    }

    size_t count(int value, int64_t batch) const {
        lb_type type = type_of(value);
        size_t n = static_cast<size_t>(batch);
        for (int i = 0; i < type.rank; i++) n *= static_cast<size_t>(type.shape[i]);
        return n;
    }

    void *place(int value, const Out &array, int64_t batch) const {
        lb_type type = type_of(value);
        nb::dlpack::dtype wanted = type.kind == LB_F32   ? nb::dtype<float>()
                                   : type.kind == LB_I32 ? nb::dtype<int32_t>()
                                                         : nb::dtype<int16_t>();
        need(array.dtype() == wanted && array.size() == count(value, batch), "an output has the wrong dtype or size");
        return const_cast<void *>(static_cast<const void *>(array.data()));
    }

    // Rows of a weight matrix whose size fits the input.
    int64_t weight_rows(int x, bool right_rank, size_t size, size_t rows, const lb_window *w) const {
        lb_type type = type_of(x);
        need(right_rank && (!w || (type.rank > 1 && w->groups > 0)), "weights have the wrong rank");
        size_t columns = static_cast<size_t>(type.shape[0]);
        if (w) columns = columns / static_cast<size_t>(w->groups) * static_cast<size_t>(w->kernel[0]) * static_cast<size_t>(w->kernel[1]);
        need(size == rows * columns, "weights have the wrong size");
        return static_cast<int64_t>(rows);
    }

    static const float *bias_of(const std::optional<Array<float>> &bias, int64_t outputs) {
        need(!bias || bias->size() == static_cast<size_t>(outputs), "a bias has the wrong size");
        return bias ? bias->data() : nullptr;
    }

    lb_program *program_;
    std::vector<int> outputs_, input_values_;
};

static nb::list kernels() {
    static const char *const ops[] = {"xor", "and", "dot8"};
    nb::list list;
    for (int i = 0; i < lb_product_kernel_count; i++) {
        const lb_product_kernel *kernel = &lb_product_kernels[i];
        nb::dict row;
        row["name"] = kernel->name;
        row["isa"] = lb_isa_name(kernel->isa);
        row["op"] = ops[kernel->op];
        row["rows"] = kernel->mr;
        row["columns"] = kernel->nr;
        row["macs_per_cycle"] = kernel->macs_per_cycle;
        row["needs"] = kernel->needs;
        row["runs"] = lb_kernel_runs(kernel) != 0;
        list.append(row);
    }
    for (int i = 0; i < lb_loop_count; i++) {
        nb::dict row;
        row["name"] = lb_loops[i].name;
        row["isa"] = lb_isa_name(lb_loops[i].isa);
        row["op"] = lb_loops[i].op;
        row["rows"] = row["columns"] = 0;
        row["macs_per_cycle"] = 0.0;
        row["needs"] = "";
        row["runs"] = lb_has_isa(lb_loops[i].isa) != 0;
        list.append(row);
    }
    return list;
}

static nb::list isas() {
    nb::list list;
    for (int isa = LB_SCALAR; isa <= lb_best_isa(); isa++) list.append(lb_isa_name(static_cast<lb_isa>(isa)));
    return list;
}

NB_MODULE(_native, m) {
    m.doc() = "The engine of lobit.runtime.";
    nb::class_<Program>(m, "Program")
        .def(nb::init<int64_t>(), nb::arg("memory_limit") = 0)
        .def("input", &Program::input)
        .def("chain", &Program::chain, nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg())
        .def("threshold", &Program::threshold)
        .def("linear", &Program::linear)
        .def("conv2d", &Program::conv2d)
        .def("linear_f32", &Program::linear_f32, nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("conv2d_f32", &Program::conv2d_f32, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("max_pool2d", &Program::max_pool2d)
        .def("avg_pool2d", &Program::avg_pool2d)
        .def("add", &Program::add)
        .def("flatten", &Program::flatten)
        .def("pad2d", &Program::pad2d)
        .def("concat", &Program::concat)
        .def("resize2d", &Program::resize2d, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none())
        .def("finish", &Program::finish)
        .def("run", &Program::run, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none())
        .def("stored", &Program::stored)
        .def("operators", &Program::operators);
    add_training(m);
    m.def("kernels", &kernels);
    m.def("isas", &isas);
    m.def("has_isa", [](int isa) { return isa >= LB_SCALAR && isa < LB_ISA_COUNT && lb_has_isa(static_cast<lb_isa>(isa)) != 0; });
    m.def("all_finite", [](Array<float> x) { return lb_all_finite(x.data(), static_cast<int64_t>(x.size())) != 0; });
    m.def("probe_limit", [](int what) {
        if (what < 0 || what >= LB_PROBE_COUNT) throw std::invalid_argument("no such probe");
        nb::gil_scoped_release release;
        return lb_probe_limit(static_cast<lb_probe>(what));
    });
}
