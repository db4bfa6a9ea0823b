#define LB_TRAINING lb_training_avx512
#include "loops.inc.h"
