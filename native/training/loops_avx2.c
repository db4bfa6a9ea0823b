#define LB_TRAINING lb_training_avx2
#define LB_LSTM lb_lstm_avx2
#include "loops.inc.h"
#include "lstm.inc.h"
