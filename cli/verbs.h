// Every verb: its body (argv[1] is its own name; returns the exit code) and its help on stdout.
#ifndef PITH_CLI_VERBS_H
#define PITH_CLI_VERBS_H

int run_main(int argc, char **argv);
void run_help(void);
int eval_main(int argc, char **argv);
void eval_help(void);
int bench_main(int argc, char **argv);
void bench_help(void);
int serve_main(int argc, char **argv);
void serve_help(void);

#endif
