/* Stands in for the library of NVIDIA's driver: two GPUs, of which the second tells little. */

#include <stdio.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3 };

typedef struct { int number; } Device;

static Device devices[2] = {{0}, {1}};
static unsigned long long energy = 1000000;

const char *nvmlErrorString(int code) { return code == OK ? "ok" : "not supported"; }
int nvmlInit_v2(void) { return OK; }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return OK; }
int nvmlShutdown(void) { return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) { *device = &devices[index]; return OK; }

int nvmlDeviceGetUUID(Device *device, char *text, unsigned length) {
    snprintf(text, length, "GPU-%d", device->number);
    return OK;
}

int nvmlDeviceGetUtilizationRates(Device *device, unsigned *rates) {
    rates[0] = 75;
    rates[1] = 10;
    return device->number == 0 ? OK : NOT_SUPPORTED;
}

typedef struct {
    unsigned version;
    unsigned long long total, reserved, unused, used;
} Memory;

int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory *memory) {
    (void)device;
    memory->total = 8ULL << 30;
    memory->used = 3ULL << 30;
    return OK;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    *milliwatts = 123500;
    return device->number == 0 ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *milliwatts) {
    *milliwatts = 300000;
    return device->number == 0 ? OK : NOT_SUPPORTED;
}

/* Two joules more at each look. */
int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    *millijoules = energy += 2000;
    return device->number == 0 ? OK : NOT_SUPPORTED;
}
