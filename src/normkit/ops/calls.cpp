// The calls of eager mode as Python functions. Each takes what is just a tensor or a number as what
// it is, where a general operator looks up its schema for every argument; anything else, and any
// call that others have a say in, it leaves to that operator, which stands behind it as its `self`.
#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/object_ptr.h>

#include <cstring>

#include "eager.h"

namespace normkit::eager {
namespace {

// One argument each, by what it is to be; none fits where `plain` is false. Those after `count`
// were left at their defaults.
struct Arguments {
  PyObject* const* at;
  Py_ssize_t count;
  bool plain = !at::impl::torch_function_mode_enabled();

  template <class Check>
  PyObject* get(Py_ssize_t i, const Check& is) {
    if (i < count && is(at[i])) return at[i];
    plain = false;
    return nullptr;
  }

  const Tensor& tensor(Py_ssize_t i) {
    static const Tensor none;
    PyObject* p = get(i, THPVariable_CheckExact);
    return p ? THPVariable_Unpack(p) : none;
  }
  MaybeTensor maybe_tensor(Py_ssize_t i) {
    if (i < count && at[i] == Py_None) return std::nullopt;
    return tensor(i);
  }
  double number(Py_ssize_t i) {
    PyObject* p = get(i, [](PyObject* o) { return PyFloat_CheckExact(o); });
    return p ? PyFloat_AS_DOUBLE(p) : 0;
  }
  double number(Py_ssize_t i, double otherwise) { return i < count ? number(i) : otherwise; }
  MaybeNumber maybe_number(Py_ssize_t i) {
    if (i < count && at[i] == Py_None) return std::nullopt;
    return number(i);
  }
  bool flag(Py_ssize_t i) {
    PyObject* p = get(i, [](PyObject* o) { return PyBool_Check(o); });
    return p == Py_True;
  }
  bool flag(Py_ssize_t i, bool otherwise) { return i < count ? flag(i) : otherwise; }
  int64_t dimensions(Py_ssize_t i) {  // 1 by default
    if (i >= count) return 1;
    PyObject* p = get(i, [](PyObject* o) { return PyLong_CheckExact(o); });
    int overflow = 0;
    const int64_t n = p ? PyLong_AsLongLongAndOverflow(p, &overflow) : 0;
    if (overflow) plain = false;
    return n;
  }
};

PyObject* wrapped(Tensor result) { return THPVariable_Wrap(std::move(result)); }
PyObject* wrapped(std::tuple<Tensor, Tensor> results) {
  THPObjectPtr first(wrapped(std::move(std::get<0>(results))));
  THPObjectPtr second(first ? wrapped(std::move(std::get<1>(results))) : nullptr);
  return second ? PyTuple_Pack(2, first.get(), second.get()) : nullptr;
}

// f(), where nothing speaks against it, else the operator. `most`: how many arguments there are.
template <class F>
PyObject* answer(PyObject* otherwise, const Arguments& a, Py_ssize_t most, bool direct,
                 const F& f) {
  if (!direct || !a.plain || a.count > most)
    return PyObject_Vectorcall(otherwise, a.at, size_t(a.count), nullptr);
  HANDLE_TH_ERRORS
  return wrapped([&] {
    pybind11::gil_scoped_release no_gil;
    return f();
  }());
  END_HANDLE_TH_ERRORS
}

bool with_autograd(c10::DispatchKeySet keys) {
  return keys.has_any(c10::autograd_dispatch_keyset) && only_the_core(keys);
}

PyObject* layer_norm(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Arguments a{args, count};
  const Tensor& x = a.tensor(0);
  const MaybeTensor weight = a.maybe_tensor(1), bias = a.maybe_tensor(2);
  const double eps = a.number(3);
  const int64_t trailing = a.dimensions(4);
  return answer(self, a, 5, only_the_core(keys_of_call(x, weight, bias)), [&] {
    return taken(core->layer_norm(passed(x), passed(weight), passed(bias), eps, trailing));
  });
}

PyObject* rms_norm(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Arguments a{args, count};
  const Tensor& x = a.tensor(0);
  const MaybeTensor weight = a.maybe_tensor(1), bias = a.maybe_tensor(2);
  const MaybeNumber eps = a.maybe_number(3);
  const int64_t trailing = a.dimensions(4);
  const bool outside = a.flag(5, false);
  const double gain_offset = a.number(6, 0);
  return answer(self, a, 7, only_the_core(keys_of_call(x, weight, bias)), [&] {
    return taken(core->rms_norm(passed(x), passed(weight), passed(bias), eps, trailing, outside,
                                gain_offset));
  });
}

PyObject* batch_norm(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Arguments a{args, count};
  const Tensor &x = a.tensor(0), &mean = a.tensor(1), &var = a.tensor(2);
  const MaybeTensor weight = a.maybe_tensor(3), bias = a.maybe_tensor(4);
  const double eps = a.number(5);
  return answer(self, a, 6, only_the_core(keys_of_call(x, mean, var, weight, bias)), [&] {
    return taken(
        core->batch_norm(passed(x), passed(mean), passed(var), passed(weight), passed(bias), eps));
  });
}

// A training step of BatchNorm, with a node or without.
template <class F>
PyObject* step(PyObject* self, PyObject* const* args, Py_ssize_t count,
               bool (*direct)(c10::DispatchKeySet), const F& f) {
  Arguments a{args, count};
  const Tensor& x = a.tensor(0);
  const MaybeTensor weight = a.maybe_tensor(1), bias = a.maybe_tensor(2);
  const double eps = a.number(3);
  const MaybeTensor mean = a.maybe_tensor(4), var = a.maybe_tensor(5), batches = a.maybe_tensor(6);
  const MaybeNumber momentum = a.maybe_number(7);
  return answer(self, a, 8, direct(keys_of_call(x, weight, bias, mean, var, batches)),
                [&] { return f(x, weight, bias, eps, mean, var, batches, momentum); });
}

PyObject* batch_norm_step(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return step(self, args, count, only_the_core,
              [](const auto&... p) { return taken(core->batch_norm_step(passed(p)...)); });
}

PyObject* batch_norm_step_with_grad(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  return step(self, args, count, with_autograd, eager::batch_norm_step_with_grad);
}

PyObject* row_norm_with_grad(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Arguments a{args, count};
  const Tensor& x = a.tensor(0);
  const MaybeTensor weight = a.maybe_tensor(1), bias = a.maybe_tensor(2);
  const MaybeNumber eps = a.maybe_number(3);
  const bool centred = a.flag(4);
  const int64_t trailing = a.dimensions(5);
  const bool outside = a.flag(6, false);
  const double gain_offset = a.number(7, 0);
  return answer(self, a, 8, with_autograd(keys_of_call(x, weight, bias)), [&] {
    return eager::row_norm_with_grad(x, weight, bias, eps, centred, trailing, outside, gain_offset);
  });
}

PyObject* batch_norm_fixed_with_grad(PyObject* self, PyObject* const* args, Py_ssize_t count) {
  Arguments a{args, count};
  const Tensor &x = a.tensor(0), &mean = a.tensor(1), &var = a.tensor(2);
  const MaybeTensor weight = a.maybe_tensor(3), bias = a.maybe_tensor(4);
  const double eps = a.number(5);
  return answer(self, a, 6, with_autograd(keys_of_call(x, mean, var, weight, bias)),
                [&] { return eager::batch_norm_fixed_with_grad(x, mean, var, weight, bias, eps); });
}

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);
PyCFunction fast(Fast f) { return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f)); }
template <Fast f>
PyMethodDef call(const char* name) {
  return {name, fast(f), METH_FASTCALL, "The operator of that name, in eager mode."};
}
PyMethodDef calls[] = {
    call<layer_norm>("layer_norm"),
    call<rms_norm>("rms_norm"),
    call<batch_norm>("batch_norm"),
    call<batch_norm_step>("batch_norm_step"),
    call<row_norm_with_grad>("row_norm_with_grad"),
    call<batch_norm_step_with_grad>("batch_norm_step_with_grad"),
    call<batch_norm_fixed_with_grad>("batch_norm_fixed_with_grad"),
};

// ------------------------------------------------------ a question asked before a call
bool takes(const Tensor& running, const Tensor& x) {
  const auto type = running.scalar_type();
  return running.dim() == 1 && running.size(0) == x.size(1) && running.device() == x.device() &&
         (type == at::kDouble || type == at::kFloat || type == at::kHalf ||
          type == at::kBFloat16) &&
         running.layout() == at::kStrided && !running.requires_grad() &&
         (running.numel() <= 1 || running.stride(0) != 0);
}

// As `may_train` of normkit._errors of plain CPU tensors; False also for all others, of which that
// is to be asked.
PyObject* may_train(PyObject*, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  Arguments a{args, count};
  const MaybeTensor mean = a.maybe_tensor(0), var = a.maybe_tensor(1), batches = a.maybe_tensor(2);
  const Tensor& x = a.tensor(3);
  const MaybeNumber momentum = a.maybe_number(4);
  // A wrapped tensor's sizes may be symbols.
  if (!a.plain || !only_the_core(keys_of_call(x, mean, var, batches)) || x.dim() < 2)
    Py_RETURN_FALSE;
  const bool averaged = momentum || batches || (!mean && !var);
  const bool counts = !batches || (batches->scalar_type() == at::kLong && batches->numel() == 1 &&
                                   batches->layout() == at::kStrided);
  const bool taken = (!mean || takes(*mean, x)) && (!var || takes(*var, x));
  const bool single = x.numel() == x.size(1) && x.size(1) > 0;  // a value has no variance
  return PyBool_FromLong(averaged && counts && taken && !single);
  END_HANDLE_TH_ERRORS
}

PyObject* connect(PyObject*, PyObject* entries) {
  const auto* found = static_cast<const Entries*>(PyCapsule_GetPointer(entries, "normkit.Entries"));
  if (!found) return nullptr;
  core = found;
  Py_RETURN_NONE;
}

PyObject* in_eager_mode(PyObject*, PyObject* args) {
  const char* name = nullptr;
  PyObject* otherwise = nullptr;
  if (!PyArg_ParseTuple(args, "sO", &name, &otherwise)) return nullptr;
  for (PyMethodDef& c : calls)
    if (!std::strcmp(c.ml_name, name)) return PyCFunction_New(&c, otherwise);
  return Py_NewRef(otherwise);
}

PyMethodDef methods[] = {
    {"connect", connect, METH_O, "Have calls go to the core of these entries."},
    {"in_eager_mode", in_eager_mode, METH_VARARGS,
     "The call of that name, or where there is none the operator itself."},
    {"may_train", fast(may_train), METH_FASTCALL,
     "Whether a batch surely is one to train with, and the running statistics can take it."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_eager", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace normkit::eager

PyMODINIT_FUNC PyInit__eager() { return PyModule_Create(&normkit::eager::module); }
