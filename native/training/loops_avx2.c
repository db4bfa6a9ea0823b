#define LB_TRAINING lb_training_avx2
#include "loops.inc.h"
