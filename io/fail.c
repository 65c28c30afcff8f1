/* SPDX-License-Identifier: Apache-2.0 */
/* fail - see fail.h. */
#include "io/fail.h"

enum status fail_with(struct buf *error, enum status st, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    buf_clear(error);
    if (buf_vprintf(error, format, args) != STATUS_OK)
        buf_clear(error);
    va_end(args);
    return st;
}
