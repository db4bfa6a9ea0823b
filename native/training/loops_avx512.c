#define LB_TRAINING lb_training_avx512
#define LB_LSTM lb_lstm_avx512
#include "loops.inc.h"
#include "lstm.inc.h"
