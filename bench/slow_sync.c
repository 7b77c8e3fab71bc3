/* Makes each fsync and fdatasync take longer, and counts them: `LD_PRELOAD=slow_sync.so`.
 * SYNC_DELAY_US says by how much, SYNC_TALLY names a file of 8 octets for the count. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static unsigned long nowhere;
static unsigned long *tally = &nowhere;
static struct timespec delay;

__attribute__((constructor)) static void prepare(void)
{
    const char *microseconds = getenv("SYNC_DELAY_US");
    const char *path = getenv("SYNC_TALLY");
    if (microseconds) {
        delay.tv_sec = atol(microseconds) / 1000000;
        delay.tv_nsec = atol(microseconds) % 1000000 * 1000;
    }
    int file = path ? open(path, O_RDWR) : -1;
    if (file >= 0) {
        void *page = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (page != MAP_FAILED)
            tally = page;
        close(file);
    }
}

static int slowly(const char *name, int file)
{
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    __atomic_add_fetch(tally, 1, __ATOMIC_RELAXED);
    if (delay.tv_sec || delay.tv_nsec)
        nanosleep(&delay, NULL);
    return sync(file);
}

int fsync(int file) { return slowly("fsync", file); }
int fdatasync(int file) { return slowly("fdatasync", file); }
