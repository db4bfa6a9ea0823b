#define LB_ELEMENTWISE lb_elementwise_avx2
#include "elementwise.inc.h"
