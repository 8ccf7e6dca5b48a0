// Winograd's convolution, see winograd.py: F(M x M, 3 x 3), float32, stride 1, padding 1.
//
// x is cut into tiles of (M + 2)^2 pixels that overlap by 2. A tile d becomes V = B^T d B, channel
// by channel; at each of its S = (M + 2)^2 places the channels are mixed by a matrix, U; what
// comes out becomes M^2 pixels, A^T m A. Tiles are worked on by few, so that they stay in the
// cache between the three steps. Channels lie innermost, as vectors.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#if defined(__AVX512F__)
constexpr int64_t WIDTH = 16, ROWS = 12;  // 24 of 32 registers hold sums
#elif defined(__AVX__)
constexpr int64_t WIDTH = 8, ROWS = 6;  // 12 of 16
#else
constexpr int64_t WIDTH = 4, ROWS = 6;
#endif
constexpr int64_t PANEL = 2 * WIDTH;  // outputs that one pass over the channels makes
constexpr int64_t TILES = 48;         // worked on together

using Vector = float __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static inline Vector load(const float* from) { return *reinterpret_cast<const Vector*>(from); }
static inline void store(float* to, Vector v) { *reinterpret_cast<Vector*>(to) = v; }

// B^T d and A^T m of one column (arXiv:1509.09308, section 4)
static inline void spread(const Vector (&d)[4], Vector (&v)[4]) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[1] - d[3];
}
static inline void gather(const Vector (&m)[4], Vector (&y)[2]) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] - m[3];
}
static inline void spread(const Vector (&d)[6], Vector (&v)[6]) {
    const Vector a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    v[0] = 4 * d[0] - 5 * d[2] + d[4];
    v[1] = a + b;
    v[2] = a - b;
    v[3] = c + e;
    v[4] = c - e;
    v[5] = 4 * d[1] - 5 * d[3] + d[5];
}
static inline void gather(const Vector (&m)[6], Vector (&y)[4]) {
    const Vector a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    y[0] = m[0] + a + c;
    y[1] = b + 2 * e;
    y[2] = a + 4 * c;
    y[3] = b + 8 * e + m[5];
}

// m[r, :PANEL] = sum over k of v[r, k] u[k, :PANEL], for R rows
template <int64_t R>
static inline void multiply(
    const float* v, int64_t channels, const float* u, float* m, int64_t outputs) {
    Vector sums[R][2] = {};
    const float* rows[(R + 2) / 3];  // every third one: x86 reaches two more from each by itself
    for (int64_t q = 0; q < (R + 2) / 3; q++) rows[q] = v + 3 * q * channels;
    for (int64_t k = 0; k < channels; k++) {
        const Vector left = load(u + PANEL * k), right = load(u + PANEL * k + WIDTH);
#pragma GCC unroll 16
        for (int64_t r = 0; r < R; r++) {
            const Vector value = rows[r / 3][r % 3 * channels] - Vector{};  // the same everywhere
            sums[r][0] += value * left;
            sums[r][1] += value * right;
        }
#pragma GCC unroll 16
        for (int64_t q = 0; q < (R + 2) / 3; q++) rows[q]++;
    }
#pragma GCC unroll 16
    for (int64_t r = 0; r < R; r++) {
        store(m + r * outputs, sums[r][0]);
        store(m + r * outputs + WIDTH, sums[r][1]);
    }
}

template <int64_t M>
struct Convolution {
    static constexpr int64_t SIDE = M + 2, S = SIDE * SIDE;
    const float *x, *u, *bias;
    float* y;
    int64_t height, width, channels, outputs;
    int64_t down = (height + M - 1) / M, across = (width + M - 1) / M;

    // pixel (row, column) of an image, or null outside of it
    template <typename T>
    T* pixel(T* data, int64_t image, int64_t row, int64_t column, int64_t many) const {
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        return inside ? data + ((image * height + row) * width + column) * many : nullptr;
    }

    // v [S, TILES, channels]
    void take(int64_t tile, float* v, const float* zeros) const {
        const int64_t image = tile / (down * across);
        const int64_t top = tile / across % down * M - 1, left = tile % across * M - 1;
        const float* from[SIDE][SIDE];
        for (int64_t i = 0; i < SIDE; i++)
            for (int64_t j = 0; j < SIDE; j++) {
                const float* there = pixel(x, image, top + i, left + j, channels);
                from[i][j] = there ? there : zeros;
            }
        for (int64_t c = 0; c < channels; c += WIDTH) {
            Vector d[SIDE], half[SIDE][SIDE], whole[SIDE];
            for (int64_t j = 0; j < SIDE; j++) {
                for (int64_t i = 0; i < SIDE; i++) d[i] = load(from[i][j] + c);
                spread(d, whole);
                for (int64_t i = 0; i < SIDE; i++) half[i][j] = whole[i];
            }
            for (int64_t i = 0; i < SIDE; i++) {
                spread(half[i], whole);
                for (int64_t j = 0; j < SIDE; j++)
                    store(v + (i * SIDE + j) * TILES * channels + c, whole[j]);
            }
        }
    }

    // m [S, TILES, PANEL] of the outputs from `first` on
    void give(int64_t tile, const float* m, int64_t first) const {
        const int64_t image = tile / (down * across);
        const int64_t top = tile / across % down * M, left = tile % across * M;
        for (int64_t c = 0; c < PANEL; c += WIDTH) {
            Vector in[SIDE], half[M][SIDE], out[M];
            for (int64_t j = 0; j < SIDE; j++) {
                for (int64_t i = 0; i < SIDE; i++) in[i] = load(m + (i * SIDE + j) * TILES * PANEL + c);
                gather(in, out);
                for (int64_t i = 0; i < M; i++) half[i][j] = out[i];
            }
            for (int64_t i = 0; i < M; i++) {
                gather(half[i], out);
                for (int64_t j = 0; j < M; j++)
                    if (float* to = pixel(y, image, top + i, left + j, outputs))
                        store(to + first + c, out[j] + load(bias + first + c));
            }
        }
    }

    // `count` tiles from `begin` on, panels [from, to) of their outputs
    void work(int64_t begin, int64_t count, int64_t from, int64_t to, float* v, float* m,
              const float* zeros) const {
        for (int64_t t = 0; t < count; t++) take(begin + t, v + t * channels, zeros);
        for (int64_t panel = from; panel < to; panel++) {
            for (int64_t s = 0; s < S; s++) {
                const float* weights = u + (panel * S + s) * channels * PANEL;
                const float* values = v + s * TILES * channels;
                float* sums = m + s * TILES * PANEL;
                int64_t t = 0;
                for (; t + ROWS <= count; t += ROWS)
                    multiply<ROWS>(values + t * channels, channels, weights, sums + t * PANEL, PANEL);
                for (; t + 3 <= count; t += 3)
                    multiply<3>(values + t * channels, channels, weights, sums + t * PANEL, PANEL);
                for (; t < count; t++)
                    multiply<1>(values + t * channels, channels, weights, sums + t * PANEL, PANEL);
            }
            for (int64_t t = 0; t < count; t++) give(begin + t, m + t * PANEL, panel * PANEL);
        }
    }

    void operator()(int64_t images) const {
        const int64_t tiles = images * down * across, panels = outputs / PANEL;
        const int64_t groups = (tiles + TILES - 1) / TILES, most = (tiles + groups - 1) / groups;
        // few tiles: their outputs are shared out as well, so that each thread has two parts or more
        const int64_t wanted = (2 * at::get_num_threads() + groups - 1) / groups;
        const int64_t shares = std::clamp<int64_t>(wanted, 1, panels);
        at::parallel_for(0, groups * shares, 1, [&](int64_t begin, int64_t end) {
            std::vector<float> v(S * TILES * channels), m(S * TILES * PANEL), zeros(channels);
            for (int64_t part = begin; part < end; part++) {
                const int64_t first = part / shares * most, share = part % shares;
                work(first, std::min(most, tiles - first), share * panels / shares,
                     (share + 1) * panels / shares, v.data(), m.data(), zeros.data());
            }
        });
    }
};

// x [B, C, H, W], channels last; u [N / PANEL, S, C, PANEL]; bias [N]; returns [B, N, H, W] like x
static at::Tensor winograd(const at::Tensor& x, const at::Tensor& u, const at::Tensor& bias) {
    const int64_t outputs = u.size(0) * PANEL;
    TORCH_CHECK(x.dim() == 4 && u.dim() == 4 && u.size(3) == PANEL && u.is_contiguous(), "winograd: u");
    TORCH_CHECK(x.size(1) == u.size(2) && x.size(1) % WIDTH == 0, "winograd: channels");
    TORCH_CHECK(bias.numel() == outputs && bias.is_contiguous(), "winograd: bias");
    const at::Tensor there = x.contiguous(at::MemoryFormat::ChannelsLast);
    at::Tensor y = at::empty({x.size(0), outputs, x.size(2), x.size(3)}, x.options(),
                             at::MemoryFormat::ChannelsLast);
    const auto run = [&](auto convolution) { convolution(x.size(0)); };
    const float *from = there.data_ptr<float>(), *by = u.data_ptr<float>();
    const float* plus = bias.data_ptr<float>();
    float* to = y.data_ptr<float>();
    if (u.size(1) == 36)
        run(Convolution<4>{from, by, plus, to, x.size(2), x.size(3), x.size(1), outputs});
    else
        run(Convolution<2>{from, by, plus, to, x.size(2), x.size(3), x.size(1), outputs});
    return y;
}

TORCH_LIBRARY_FRAGMENT(ldm, library) {
    library.def("winograd(Tensor x, Tensor u, Tensor bias) -> Tensor");
    library.def("winograd_panel() -> int", []() { return PANEL; });
}
TORCH_LIBRARY_IMPL(ldm, CPU, library) { library.impl("winograd", &winograd); }
