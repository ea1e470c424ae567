// The Python module. Importing it loads the library, and loading the library registers the
// operators with PyTorch; all it offers to Python is which instruction set was chosen.
#include <Python.h>

#include "kernels.h"

namespace {

PyObject* instruction_set(PyObject*, PyObject*) {
  return PyUnicode_FromString(normkit::instruction_set());
}

PyMethodDef methods[] = {
    {"instruction_set", instruction_set, METH_NOARGS, "The instruction set in use."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_core", nullptr, 0, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__core() { return PyModule_Create(&module); }
