#include "elementwise.h"

#define LB_ELEMENTWISE lb_elementwise_scalar
#include "elementwise.inc.h"
