/* Teams of threads. A run borrows a team from the process-wide list, so sessions may run at once; each job is run by every member, which meet at
 * barriers. A forked child has no threads: it forgets the teams and makes its own. */
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "internal.h"

enum { SPINS = 4000 };

struct lb_team {
    lb_team *next;
    int threads;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    _Atomic long turn; /* counts jobs; members wait for it to move */
    _Atomic int unfinished;
    lb_job job;
    void *arg;
};

typedef struct {
    lb_team *team;
    int thread;
} member;

static pthread_mutex_t engine_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static lb_team *idle_teams;

static void lock(void) { pthread_mutex_lock(&engine_lock); }
static void unlock(void) { pthread_mutex_unlock(&engine_lock); }

static void in_child(void) {
    idle_teams = NULL; /* their threads are not here */
    pthread_mutex_unlock(&engine_lock);
}

static void watch_forks(void) { pthread_atfork(lock, unlock, in_child); }

/* A fork is watched before the first lock, so that no child inherits one that is held. */
void lb_engine_lock(void) {
    pthread_once(&once, watch_forks);
    lock();
}
void lb_engine_unlock(void) { unlock(); }

static inline void relax(int *spins) {
    if (++*spins > SPINS) sched_yield();
#if defined(__x86_64__)
    else
        __builtin_ia32_pause();
#endif
}

void lb_barrier_wait(lb_barrier *barrier) {
    if (barrier->threads == 1) return;
    int turn = atomic_load(&barrier->turn), spins = 0;
    if (atomic_fetch_add(&barrier->arrived, 1) + 1 == barrier->threads) {
        atomic_store(&barrier->arrived, 0);
        atomic_store(&barrier->turn, turn + 1);
        return;
    }
    while (atomic_load(&barrier->turn) == turn) relax(&spins);
}

static void *work(void *arg) {
    member self = *(member *)arg;
    free(arg);
    lb_team *team = self.team;
    for (long done = 0;;) {
        for (int spins = 0; atomic_load(&team->turn) == done && spins < SPINS;) relax(&spins);
        if (atomic_load(&team->turn) == done) {
            pthread_mutex_lock(&team->lock);
            while (atomic_load(&team->turn) == done) pthread_cond_wait(&team->wake, &team->lock);
            pthread_mutex_unlock(&team->lock);
        }
        if (!team->job) break;
        done++;
        team->job(team->arg, self.thread);
        atomic_fetch_sub(&team->unfinished, 1);
    }
    atomic_fetch_sub(&team->unfinished, 1);
    return NULL;
}

static void start(lb_team *team, int members, lb_job job, void *arg) {
    team->job = job;
    team->arg = arg;
    atomic_store(&team->unfinished, members);
    pthread_mutex_lock(&team->lock);
    atomic_fetch_add(&team->turn, 1);
    pthread_cond_broadcast(&team->wake);
    pthread_mutex_unlock(&team->lock);
}

static void finish(lb_team *team) {
    for (int spins = 0; atomic_load(&team->unfinished) > 0;) relax(&spins);
}

static lb_team *new_team(int threads) {
    lb_team *team = calloc(1, sizeof *team);
    if (!team) return NULL;
    team->threads = threads;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->wake, NULL);
    for (int t = 1; t < threads; t++) {
        member *self = malloc(sizeof *self);
        pthread_t thread;
        if (self) *self = (member){team, t};
        if (self && pthread_create(&thread, NULL, work, self) == 0) {
            pthread_detach(thread);
            continue;
        }
        free(self);
        start(team, t - 1, NULL, NULL); /* send home those that came */
        finish(team);
        free(team);
        return NULL;
    }
    return team;
}

int lb_team_run(int threads, lb_job job, void *arg) {
    if (threads == 1) {
        job(arg, 0);
        return 0;
    }
    lb_engine_lock();
    lb_team **slot = &idle_teams;
    while (*slot && (*slot)->threads != threads) slot = &(*slot)->next;
    lb_team *team = *slot;
    if (team) *slot = team->next;
    lb_engine_unlock();
    if (!team && !(team = new_team(threads))) return -1;
    start(team, threads - 1, job, arg);
    job(arg, 0);
    finish(team);
    lb_engine_lock();
    team->next = idle_teams;
    idle_teams = team;
    lb_engine_unlock();
    return 0;
}
