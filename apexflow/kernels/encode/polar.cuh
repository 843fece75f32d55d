// Half of cv2.fastAtan2 in degrees: an odd polynomial of degree 7 on [0, 1], see hsv.py. A hue
// is this angle; doubled, which is exact, it is the direction.
__device__ inline float half_angle(float u, float v) {
    const float across = fabsf(u), along = fabsf(v);
    const float tiny = 2.220446049250313e-16f;  // keeps 0 / 0 out
    const float c = fminf(across, along) / (fmaxf(across, along) + tiny), cc = c * c;
    // 180 / pi / 2 times each coefficient, rounded to float32 after each product.
    const float degrees = 57.29577951308232f;
    const float a1 = 0.9997878412794807f * degrees * 0.5f;
    const float a3 = -0.3258083974640975f * degrees * 0.5f;
    const float a5 = 0.1555786518463281f * degrees * 0.5f;
    const float a7 = -0.04432655554792128f * degrees * 0.5f;
    float angle = fmaf(fmaf(fmaf(a7, cc, a5), cc, a3), cc, a1) * c;
    if (across < along) angle = 45.0f - angle;
    if (u < 0.0f) angle = 90.0f - angle;
    return v < 0.0f ? 180.0f - angle : angle;
}

__device__ inline float squared_length(float2 vector) {
    return fmaf(vector.x, vector.x, vector.y * vector.y);
}
