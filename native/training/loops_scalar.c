#define LB_TRAINING lb_training_scalar
#define LB_LSTM lb_lstm_scalar
#include "loops.inc.h"
#include "lstm.inc.h"
