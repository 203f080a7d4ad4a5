// Problems read from files, samples written to a folder and read back: what is refused, and what a killed run leaves.
#include "eval/store.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "calls.h"

static char folder[64];

#define REFUSED(with, part, call)                                                                                      \
    do {                                                                                                               \
        assert_int_equal(call, with);                                                                                  \
        if (!strstr(err.msg, part)) fail_msg("expected \"%s\" in \"%s\"", part, err.msg);                              \
        assert_null(strchr(err.msg, '\n'));                                                                            \
    } while (0)

static int setup(void **state) {
    (void)state;
    strcpy(folder, "test_eval_store.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static const char *path_of(const char *name) {
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *path, const char *text, size_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static size_t size_of(const char *path) {
    struct stat s;
    assert_int_equal(stat(path, &s), 0);
    return (size_t)s.st_size;
}

// ------------------------------------------------------------------------------------------------- problems

static const char GOOD[] =
    "{\"prompt\": \"1+1?\", \"answer\": 2, \"id\": \"sum\", \"band\": \"short\", \"year\": 2024}\n"
    "\n  \t\r\n"
    "{\"prompt\": \"Why?\", \"answer\": \"so\", \"system\": \"Be brief.\"}\n"
    "{\"prompt\": \"\\u00e4\", \"answer\": -7, \"id\": 12}"; // no newline at the end

static eval_files files;

static void load(eval_task *task, const char *text, size_t bytes, pith_status with, const char *part) {
    const char *path = path_of("task.jsonl");
    write_file(path, text, bytes);
    OK(eval_files_find(path, NULL, &files, &err));
    assert_string_equal(files.name, "task");
    if (with == PITH_OK) {
        OK(eval_task_load(&files, task, &err));
        return;
    }
    REFUSED(with, part, eval_task_load(&files, task, &err));
    assert_non_null(strstr(err.msg, path));
    eval_files_free(&files);
}

static void problems_are_read(void **state) {
    (void)state;
    eval_task task;
    load(&task, GOOD, sizeof GOOD - 1, PITH_OK, NULL);
    assert_int_equal(task.n, 3);
    assert_string_equal(task.problems[0].answer, "2");
    assert_string_equal(task.problems[0].band, "short");
    assert_string_equal(task.problems[1].id, "1"); // its number
    assert_string_equal(task.problems[1].system, "Be brief.");
    assert_null(task.problems[1].band);
    assert_int_equal(task.problems[1].line, 4);
    assert_string_equal(task.problems[2].answer, "-7");
    assert_int_equal(eval_task_find(&task, "12"), 2);
    assert_int_equal(eval_task_find(&task, "none"), -1);
    const uint64_t digest = task.digest;
    eval_task_free(&task);
    eval_files_free(&files);

    char other[sizeof GOOD]; // another answer is another task
    memcpy(other, GOOD, sizeof GOOD);
    *strchr(other, '2') = '3';
    load(&task, other, sizeof GOOD - 1, PITH_OK, NULL);
    assert_true(task.digest != digest);
    eval_task_free(&task);
    eval_files_free(&files);
}

static void damaged_lines_are_named(void **state) {
    (void)state;
    static const struct {
        const char *line, *part;
    } cases[] = {
        {"{\"prompt\": \"x\", \"answer\":", "JSON object"},
        {"[1]", "JSON object"},
        {"7", "JSON object"},
        {"{\"prompt\": \"x\", \"answer\": 1} x", "JSON object"},
        {"{\"prompt\": \"x\", \"prompt\": \"y\", \"answer\": 1}", "JSON object"},
        {"{\"prompt\": \"\xff\", \"answer\": 1}", "JSON object"},
        {"{\"prompt\": \"a\\u0000b\", \"answer\": 1}", "JSON object"},
        {"{\"answer\": 1}", "\"prompt\""},
        {"{\"prompt\": \"\", \"answer\": 1}", "\"prompt\""},
        {"{\"prompt\": 5, \"answer\": 1}", "\"prompt\""},
        {"{\"prompt\": \"x\"}", "\"answer\""},
        {"{\"prompt\": \"x\", \"answer\": 1.5}", "\"answer\""},
        {"{\"prompt\": \"x\", \"answer\": null}", "\"answer\""},
        {"{\"prompt\": \"x\", \"answer\": \"\"}", "\"answer\""},
        {"{\"prompt\": \"x\", \"answer\": 1, \"system\": 3}", "\"system\""},
        {"{\"prompt\": \"x\", \"answer\": 1, \"band\": 3}", "\"band\""},
        {"{\"prompt\": \"x\", \"answer\": 1, \"id\": []}", "\"id\""},
        {"{\"prompt\": \"x\", \"answer\": 1, \"id\": \"sum\"}", "that of"},
    };
    for (size_t i = 0; i < T_COUNT(cases); i++) {
        char text[400];
        const int n = snprintf(text, sizeof text, "%s\n%s\n", GOOD, cases[i].line);
        eval_task task;
        load(&task, text, (size_t)n, PITH_E_FORMAT, cases[i].part);
        assert_non_null(strstr(err.msg, ".jsonl:6: "));
    }
    eval_task task;
    load(&task, "\n\n", 2, PITH_E_FORMAT, "found none");
}

static void tasks_are_found(void **state) {
    (void)state;
    REFUSED(PITH_E_ARG, "FILE.jsonl", eval_files_find("chess", NULL, &files, &err));
    REFUSED(PITH_E_ARG, "--data", eval_files_find("./x.jsonl", folder, &files, &err));
    REFUSED(PITH_E_IO, "No such file", eval_files_find("pebble", "/nowhere", &files, &err));
    REFUSED(PITH_E_IO, "--data", eval_files_find("pebble", folder, &files, &err));
    REFUSED(PITH_E_IO, "aime24.jsonl of github.com", eval_files_find("aime24", folder, &files, &err));

    assert_int_equal(mkdir(path_of("pebble"), 0777), 0);
    write_file(path_of("pebble/b.jsonl"), GOOD, sizeof GOOD - 1);
    write_file(path_of("pebble/a.jsonl"), "{\"prompt\": \"first\", \"answer\": 1}\n", 33);
    write_file(path_of("pebble/notes.txt"), "x", 1);
    OK(eval_files_find("pebble", folder, &files, &err));
    assert_int_equal(files.n, 2);
    eval_task task;
    OK(eval_task_load(&files, &task, &err));
    assert_int_equal(task.n, 4);
    assert_string_equal(task.problems[0].prompt, "first"); // by name
    assert_string_equal(task.problems[2].id, "2");         // numbered over all files
    eval_task_free(&task);
    eval_files_free(&files);
    OK(eval_files_find("aime24", path_of("pebble/a.jsonl"), &files, &err));
    assert_string_equal(files.name, "aime24");
    eval_files_free(&files);
}

// ------------------------------------------------------------------------------------------------- settings

static void other_settings_are_refused(void **state) {
    (void)state;
    json_t *settings = json_pack("{s:s, s:i, s:f}", "task", "t", "seed", 1, "temperature", 0.6);
    char dir[100];
    snprintf(dir, sizeof dir, "%s/out", folder);
    OK(eval_store_settle(dir, settings, &err));
    OK(eval_store_settle(dir, settings, &err));
    json_object_set_new(settings, "seed", json_integer(2));
    REFUSED(PITH_E_STATE, "seed 1, this run has 2", eval_store_settle(dir, settings, &err));
    json_object_set_new(settings, "seed", json_integer(1));
    json_object_set_new(settings, "new", json_string("x"));
    REFUSED(PITH_E_STATE, "new nothing, this run has \"x\"", eval_store_settle(dir, settings, &err));
    write_file(path_of("out/run.json"), "{", 1);
    REFUSED(PITH_E_FORMAT, "run.json", eval_store_settle(dir, settings, &err));
    REFUSED(PITH_E_IO, "cannot make", eval_store_settle("/nowhere/out", settings, &err));
    json_decref(settings);
}

static void names_are_safe_and_unique(void **state) {
    (void)state;
    static const char *const policies[] = {"full", "rpc:p=1,r=2", "rpc:p=1/r=2", "rpc:p=1;r=2", "../x", "a b", "a\tb"};
    char stems[T_COUNT(policies) + 2][200], longer[300] = {0};
    size_t n = 0;
    for (; n < T_COUNT(policies); n++) eval_store_stem(policies[n], stems[n], sizeof stems[n]);
    memset(longer, 'x', 250);
    eval_store_stem(longer, stems[n++], sizeof stems[0]);
    longer[249] = 'y';
    eval_store_stem(longer, stems[n++], sizeof stems[0]);
    assert_string_equal(stems[0], "full");
    assert_string_equal(stems[1], "rpc-p=1-r=2");
    for (size_t i = 0; i < n; i++) {
        assert_true(strlen(stems[i]) < 180);
        assert_null(strpbrk(stems[i], "/:;, \t*?\"'$"));
        for (size_t j = 0; j < i; j++) assert_string_not_equal(stems[i], stems[j]);
    }
}

// -------------------------------------------------------------------------------------------------- samples

static const char POLICY[] = "rpc:p=16,r=4";

static eval_sample sample_of(uint32_t problem, uint32_t number) {
    eval_sample s = {.problem = problem,
                     .sample = number,
                     .prompt_tokens = 10,
                     .completion_tokens = 20 + number,
                     .finished = number % 2,
                     .correct = problem % 2,
                     .compressions = 3,
                     .rows_peak = 17,
                     .rows_full = 29,
                     .bytes_peak = 1ull << 40,
                     .bytes_full = 1ull << 41,
                     .rows_mean = 12.25,
                     .rows_full_mean = 20.5,
                     .bytes_mean = 1e6,
                     .bytes_full_mean = 2e6,
                     .n_points = 2,
                     .points = {{1, 11}, {2, 12}}};
    return s;
}

static void add(eval_store *store, const eval_task *task, const eval_sample *s) {
    const eval_text text = {POLICY, "<user>1+1?", "\"two\"\n\xc3\xa4 \\boxed{2}", "2"};
    json_t *line = eval_sample_pack(task, s, &text);
    assert_non_null(line);
    OK(eval_store_add(store, line, &err));
    json_decref(line);
}

static const eval_part ALL = {.limit = 3, .n_shards = 1, .samples = 4};

// Opens the policy's file and reads; the store stays open when it is asked for.
static void read_back(const eval_task *task, uint32_t shard, uint32_t n_shards, eval_results *results,
                      eval_store *keep) {
    eval_store store;
    OK(eval_results_init(results, POLICY, POLICY, &ALL, &err));
    OK(eval_store_open(&store, folder, POLICY, shard, n_shards, &err));
    OK(eval_store_read(&store, task, results, &err));
    if (keep) *keep = store;
    else OK(eval_store_close(&store, &err));
}

static void samples_come_back(void **state) {
    (void)state;
    eval_task task;
    load(&task, GOOD, sizeof GOOD - 1, PITH_OK, NULL);
    eval_results results;
    eval_store store, second;
    read_back(&task, 0, 1, &results, &store);
    REFUSED(PITH_E_STATE, "another run", eval_store_open(&second, folder, POLICY, 0, 1, &err));
    for (uint32_t i = 0; i < 3; i++) {
        eval_sample s = sample_of(i, i);
        add(&store, &task, &s);
    }
    OK(eval_store_close(&store, &err));
    eval_results_free(&results);

    char path[120];
    snprintf(path, sizeof path, "%s/rpc-p=16-r=4.jsonl", folder);
    const size_t whole = size_of(path);
    json_error_t at;
    FILE *f = fopen(path, "r");
    json_t *line = json_loadf(f, JSON_DISABLE_EOF_CHECK, &at);
    fclose(f);
    assert_string_equal(json_string_value(json_object_get(line, "band")), "short");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(line, "fields"), "year")), 2024);
    json_decref(line);

    for (size_t cut = 0; cut <= 2; cut++) { // whole; a line that is cut off; one whose newline alone is missing
        if (cut > 0) {
            f = fopen(path, "a");
            fputs(cut == 1 ? "{\"task\": \"ta" : "{}", f);
            fclose(f);
        }
        read_back(&task, 0, 1, &results, &store);
        assert_int_equal(results.n, 3);
        assert_int_equal(size_of(path), whole);
        for (uint32_t i = 0; i < 3; i++) {
            const eval_sample want = sample_of(i, i);
            const eval_text text = {POLICY, "p", "g", "a"};
            json_t *got = eval_sample_pack(&task, &results.samples[i], &text),
                   *expected = eval_sample_pack(&task, &want, &text);
            assert_true(json_equal(got, expected));
            json_decref(got);
            json_decref(expected);
            assert_true(eval_results_has(&results, i, i));
        }
        assert_false(eval_results_has(&results, 0, 1));
        OK(eval_store_close(&store, &err));
        eval_results_free(&results);
    }

    // A shard reads them too and writes a file of its own, whose cut line is another run's to remove.
    read_back(&task, 1, 2, &results, &store);
    assert_int_equal(results.n, 3);
    eval_sample s = sample_of(1, 3);
    add(&store, &task, &s);
    OK(eval_store_close(&store, &err));
    eval_results_free(&results);
    char shard[120];
    snprintf(shard, sizeof shard, "%s/rpc-p=16-r=4.shard-2-of-2.jsonl", folder);
    f = fopen(shard, "a");
    fputs("{\"cut", f);
    fclose(f);
    const size_t with_cut = size_of(shard);
    read_back(&task, 0, 1, &results, NULL);
    assert_int_equal(results.n, 4);
    assert_int_equal(size_of(shard), with_cut);
    eval_results_free(&results);

    // What a run is not about is left out.
    const eval_part part = {.limit = 2, .shard = 1, .n_shards = 2, .samples = 2};
    OK(eval_results_init(&results, POLICY, POLICY, &part, &err));
    OK(eval_store_open(&store, folder, POLICY, 0, 1, &err));
    OK(eval_store_read(&store, &task, &results, &err));
    assert_int_equal(results.n, 1);
    assert_int_equal(results.samples[0].problem, 1);
    OK(eval_store_close(&store, &err));
    eval_results_free(&results);
    eval_task_free(&task);
    eval_files_free(&files);
}

static void damaged_samples_are_named(void **state) {
    (void)state;
    eval_task task;
    load(&task, GOOD, sizeof GOOD - 1, PITH_OK, NULL);
    static const struct {
        const char *key, *value, *part;
    } cases[] = {
        {"problem", "\"other\"", "found \"other\""},
        {"policy", "\"full\"", "found full"},
        {"sample", "-1", "\"sample\""},
        {"correct", "1", "\"correct\""},
        {"rows_mean", "\"x\"", "\"rows_mean\""},
        {"rows_over_time", "[[2, 1], [1, 1]]", "\"rows_over_time\""},
        {"bytes_peak", "null", "\"bytes_peak\""},
    };
    const char *path = path_of("rpc-p=16-r=4.jsonl");
    for (size_t i = 0; i < T_COUNT(cases) + 1; i++) {
        eval_sample s = sample_of(0, 0);
        json_t *line = eval_sample_pack(&task, &s, &(eval_text){POLICY, "p", "g", NULL});
        assert_true(json_is_null(json_object_get(line, "answer")));
        if (i < T_COUNT(cases))
            json_object_set_new(line, cases[i].key, json_loads(cases[i].value, JSON_DECODE_ANY, NULL));
        char *text = json_dumps(line, JSON_COMPACT), twice[4000];
        const int n = i < T_COUNT(cases) ? snprintf(twice, sizeof twice, "%s\n", text)
                                         : snprintf(twice, sizeof twice, "%s\n{broken}\n", text);
        write_file(path, twice, (size_t)n);
        free(text);
        json_decref(line);
        eval_results results;
        eval_store store;
        OK(eval_results_init(&results, POLICY, POLICY, &ALL, &err));
        OK(eval_store_open(&store, folder, POLICY, 0, 1, &err));
        REFUSED(PITH_E_FORMAT,
                i < T_COUNT(cases) ? cases[i].part : "jsonl:2: ", eval_store_read(&store, &task, &results, &err));
        OK(eval_store_close(&store, &err));
        eval_results_free(&results);
    }
    eval_task_free(&task);
    eval_files_free(&files);
}

static void a_full_disk_is_told(void **state) {
    (void)state;
    eval_task task;
    load(&task, GOOD, sizeof GOOD - 1, PITH_OK, NULL);
    if (access("/dev/full", W_OK) == 0) {
        eval_store store = {.path = strdup("/dev/full"), .fd = open("/dev/full", O_WRONLY)};
        eval_sample s = sample_of(0, 0);
        json_t *line = eval_sample_pack(&task, &s, &(eval_text){POLICY, "p", "g", NULL});
        REFUSED(PITH_E_IO, "No space left", eval_store_add(&store, line, &err));
        assert_int_equal(store.bytes, 0);
        json_decref(line);
        OK(eval_store_close(&store, &err));
    }
    eval_task_free(&task);
    eval_files_free(&files);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(problems_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_lines_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(tasks_are_found, setup, teardown),
        cmocka_unit_test_setup_teardown(other_settings_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_safe_and_unique, setup, teardown),
        cmocka_unit_test_setup_teardown(samples_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(damaged_samples_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_is_told, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
