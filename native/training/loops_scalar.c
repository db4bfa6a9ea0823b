#define LB_TRAINING lb_training_scalar
#include "loops.inc.h"
