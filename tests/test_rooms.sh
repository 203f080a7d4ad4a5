#!/bin/sh
# Knowledge points one way: which rooms' headers a file may include.
set -eu
cd "$PITH_ROOT"
bad=0
may_see() { # folder rooms...
    room=$1
    shift
    [ -d "$room" ] || { echo "$room is missing"; bad=1; }
    for file in "$room"/*; do
        [ -f "$file" ] || continue
        for seen in $(sed -n 's/^ *#include "\([a-z_]*\)\/.*/\1/p' "$file"); do
            case " $* " in
            *" $seen "*) ;;
            *) echo "$file includes $seen/"; bad=1 ;;
            esac
        done
    done
}
may_see src/base   base
may_see src/ops    base ops
may_see src/cpu    base ops cpu
may_see src/cuda   base ops cuda
may_see src/cache  base ops cache
may_see src/model  base ops cache model jinja # jinja: llama.cpp's template engine
may_see src/policy base ops policy            # no policy knows a backend
may_see src/engine base ops cpu cuda cache model policy engine # engine.c creates the backend
may_see eval       eval                       # and pith.h, like any other program
may_see server     base server                # the same
may_see cli        base eval server           # the same
exit $bad
