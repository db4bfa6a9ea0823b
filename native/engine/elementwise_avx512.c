#define LB_ELEMENTWISE lb_elementwise_avx512
#include "elementwise.inc.h"
