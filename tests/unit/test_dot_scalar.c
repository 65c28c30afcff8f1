/* SPDX-License-Identifier: Apache-2.0 */
/* The tests of test_dot.c on the code for machines without SSE2: dot.c is compiled into this
 * program a second time, and the library's copy is not linked. */
#define DOT_SCALAR
#define DOT_TEST_NAME "dot_scalar"
#include "core/smtp/dot.c"
#include "tests/unit/test_dot.c"
