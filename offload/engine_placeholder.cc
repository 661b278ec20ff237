#include "offload/engine.h"
