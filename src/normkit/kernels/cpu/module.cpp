// The Python module. Importing it loads the library, and loading the library registers the
// operators with PyTorch; it tells which instruction set was chosen, and where the operators are.
#include <Python.h>

#include "entries.h"
#include "kernels.h"

namespace {

PyObject* instruction_set(PyObject*, PyObject*) {
  return PyUnicode_FromString(normkit::instruction_set());
}

PyObject* entries(PyObject*, PyObject*) {
  static const normkit::Entries all = [] {
    normkit::Entries e;
    add_row_norm(e);
    add_batch_norm(e);
    add_batch_norm_backward(e);
    return e;
  }();
  return PyCapsule_New(const_cast<normkit::Entries*>(&all), "normkit.Entries", nullptr);
}

PyMethodDef methods[] = {
    {"instruction_set", instruction_set, METH_NOARGS, "The instruction set in use."},
    {"entries", entries, METH_NOARGS, "The operators as plain functions, for normkit.ops._eager."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_core", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__core() { return PyModule_Create(&module); }
