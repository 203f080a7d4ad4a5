// Clients that take too long over a request. libmicrohttpd's timeout starts again with every byte, so a client that
// sends one now and then would keep its connection for ever; here the time to a whole request is bounded. It runs from
// the connection's opening, or the end of the answer before, and stands still while the server is at work.
#ifndef PITH_SERVER_WATCH_H
#define PITH_SERVER_WATCH_H

#include <stdint.h>

typedef struct watch watch;
typedef struct watched watched; // one connection

watch *watch_start(uint32_t seconds); // NULL: no memory, or no thread
void watch_stop(watch *w);            // every connection was closed. NULL is nothing.

// Any thread may call these. When a connection's time is up its socket is shut down, never closed: whoever reads there
// sees the end.
watched *watch_open(watch *w, int socket); // a request is expected from now on. NULL: no memory
void watch_whole(watch *w, watched *c);    // it is there: the time stands still
void watch_again(watch *w, watched *c);    // it is answered: another one is expected from now on
void watch_close(watch *w, watched *c);    // frees it; `socket` may be closed afterwards, not before

#endif
