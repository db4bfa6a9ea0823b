// The part of lobit._native that training uses.
#pragma once

#include <nanobind/nanobind.h>

void add_training(nanobind::module_ &m);
