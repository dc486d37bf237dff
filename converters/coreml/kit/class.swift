// Written by tsmzoo {{ contract.versions.tsmzoo }} for {{ file }}, sha256
// {{ contract.sha256 }}.
// Numbers and names are those of {{ contract_file }}: export again rather than edit them.

import CoreImage
import CoreML
import CoreVideo
import Foundation

{% if online %}
/// Runs {{ contract.model }} over a stream, frame by frame, and keeps its {{ (contract.parts or contract.states) | length }} states between them.
{% else %}
/// Runs {{ contract.model }} over clips of {{ contract.frames }} frames.
{% endif %}
///
/// It belongs to one thread or actor at a time. iOS 15, macOS 12 and later.
public final class {{ class }} {
    /// What the model holds the stream to be, and the probability of that by now.
    public struct Answer: Equatable {
        public let index: Int
        public let label: String
        public let probability: Float
    }

    public enum Failure: Error {
        /// A file of the app, or an output of the model, is not there.
        case missing(String)
        /// An input is not of the shape that the model takes.
        case shape(String)
    }

    /// Side of a frame, and the short side that a picture is scaled to before this square is cut from its centre.
    public static let size = {{ contract.size }}
    public static let resize = {{ contract.resize }}
{% if not online %}
    public static let frames = {{ contract.frames }}
{% endif %}
{% if paced %}
    /// Frames a second.
    public static let fps = {{ contract.target_fps }}
    /// Seconds by which a frame may be early.
    private static let clockSlack = {{ slack }}
{% endif %}
    /// Largest `selfCheck` of a device that computes what it should.
    public static let tolerance: Float = {{ "%g" | format(vector.tolerance) }}
    private static let classes = {{ contract.classes }}
    private static let steps = {{ vector.inputs | length }}
    private static let inputShape: [Int] = [{{ main.lengths() | join(", ") }}]
{% if rgb %}
{% if main.type == "image" %}
{% else %}
    /// Where the network's channels, {{ order }}, stand in a pixel of B, G, R, A.
    private static let offsets: [Int] = [{{ "0, 1, 2" if order == "BGR" else "2, 1, 0" }}]
{% if not embedded %}
    private static let mean: [Float] = [{{ contract.mean | join(", ") }}]
    private static let std: [Float] = [{{ contract.std | join(", ") }}]
{% endif %}
{% endif %}
{% endif %}
{% if online %}

    /// Each state goes in under one name and comes out, for the next frame, under the other.
    private static let states: [(input: String, output: String, shape: [Int])] = [
{% for pair in contract.states %}
        ("{{ pair.input }}", "{{ pair.output }}", {{ contract.inputs[loop.index].lengths() | list }}){{ "" if loop.last else "," }}
{% endfor %}
    ]
{% endif %}

    /// Names of the classes, in the order of the logits.
    public static let labels: [String] = [
{% for label in contract.class_names %}
        {{ label | json }}{{ "" if loop.last else "," }}
{% endfor %}
    ]

{% if online %}
    /// Frames whose logits are averaged.
    public var window = {{ smoothing.window }}
    /// Frames running that a class must be the likeliest before it becomes the answer.
    public var hold = {{ smoothing.hold }}
{% else %}
    /// Clips whose logits are averaged.
    public var window = {{ smoothing.window }}
    /// Clips running that a class must be the likeliest before it becomes the answer.
    public var hold = {{ smoothing.hold }}
{% endif %}
    /// Probability that the likeliest class must reach to count.
    public var threshold: Float = {{ smoothing.threshold }}
    /// What is to be shown; nil as long as nothing is decided.
    public private(set) var answer: Answer?

    private let model: MLModel
    private var recent: [[Float]] = []
    private var leader: Int?
    private var streak = 0
{% if online %}
    private var held = {{ class }}.zeros()
{% endif %}
{% if paced %}
    private var due = -Double.infinity
{% endif %}
{% if rgb %}
    // Without a colour space of its own, values pass as the camera gave them.
    private let context = CIContext(options: [.workingColorSpace: NSNull()])
{% endif %}

    public init(model: MLModel) {
        self.model = model
    }

    /// Loads the model that Xcode compiled into the app.
    public convenience init(bundle: Bundle = .main, computeUnits: MLComputeUnits = .all) throws {
        guard let url = bundle.url(forResource: "{{ stem }}", withExtension: "mlmodelc") else {
            throw Failure.missing("{{ stem }}.mlmodelc")
        }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits
        self.init(model: try MLModel(contentsOf: url, configuration: configuration))
    }

{% if online %}
    /// Forgets all that was seen. Call it where the stream breaks: after a pause, when another camera takes over.
{% if contract.averages %}
    /// Call it where an action begins, too: an answer is of all frames since, each weighing alike.
{% endif %}
    public func reset() {
        held = Self.zeros()
{% if paced %}
        due = -Double.infinity
{% endif %}
{% else %}
    /// Forgets the clips seen so far.
    public func reset() {
{% endif %}
        recent.removeAll()
        answer = nil
        leader = nil
        streak = 0
    }
{% if paced %}

    /// Says whether the frame of this time is to be seen: the model knows `fps` frames a second, whatever comes.
    public func isDue(_ seconds: Double) -> Bool {
        let step = 1 / Self.fps
        if due - step - Self.clockSlack <= seconds && seconds < due - Self.clockSlack { return false }
        // The clock keeps its beat, whatever the camera's own; after a gap, or a jump back, it starts anew.
        let kept = due <= seconds + Self.clockSlack && seconds < due + step
        due = (kept ? due : seconds) + step
        return true
    }
{% endif %}
{% if rgb %}

{% if online %}
    /// Shows the model the next frame, a camera's picture of any size, upright. Returns `answer`.
    @discardableResult
    public func see(_ frame: CVPixelBuffer) throws -> Answer? {
{% if main.type == "image" %}
        return decide(try run(square(of: frame)))
{% else %}
        return decide(try run(Self.values(of: square(of: frame))))
{% endif %}
    }
{% else %}
    /// Shows the model a clip: pictures of any size, upright, in order of time. Returns `answer`.
    @discardableResult
    public func see(_ clip: [CVPixelBuffer]) throws -> Answer? {
        guard clip.count == Self.frames else { throw Failure.shape("\(clip.count) frames") }
        return decide(try run(clip.flatMap { try Self.values(of: square(of: $0)) }))
    }
{% endif %}
{% else %}

    /// Shows the model an input as the file takes it. Returns `answer`.
    @discardableResult
    public func see(_ values: [Float]) throws -> Answer? {
        return decide(try run(values))
    }
{% endif %}

{% if main.type == "image" %}
    /// Returns the logits, before any averaging, of a frame of `size` x `size` pixels, `kCVPixelFormatType_32BGRA`.
    public func run(_ {{ main.name }}: CVPixelBuffer) throws -> [Float] {
        return try run(MLFeatureValue(pixelBuffer: {{ main.name }}))
    }
{% else %}
    /// Returns the logits, before any averaging, of an input as the file takes it: `{{ main.name }}`, {{ main.lengths() | join(", ") }}.
    ///
    /// {{ main.meaning }}
    public func run(_ {{ main.name }}: [Float]) throws -> [Float] {
        guard {{ main.name }}.count == Self.inputShape.reduce(1, *) else { throw Failure.shape("\({{ main.name }}.count) values") }
        return try run(MLFeatureValue(shapedArray: MLShapedArray<Float>(scalars: {{ main.name }}, shape: Self.inputShape)))
    }
{% endif %}

    private func run(_ value: MLFeatureValue) throws -> [Float] {
{% if online %}
        var inputs = held
        inputs["{{ main.name }}"] = value
{% else %}
        let inputs: [String: MLFeatureValue] = ["{{ main.name }}": value]
{% endif %}
        let outputs = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
        // Read through a shaped array: Core ML pads the rows of its own.
        guard let logits = outputs.featureValue(for: "{{ contract.outputs[0].name }}")?.shapedArrayValue(of: Float.self) else {
            throw Failure.missing("{{ contract.outputs[0].name }}")
        }
{% if online %}
        for state in Self.states {
            guard let next = outputs.featureValue(for: state.output) else { throw Failure.missing(state.output) }
            held[state.input] = next
        }
{% endif %}
        return logits.scalars
    }

    /// Averages, and lets a class become the answer once it has been the likeliest for long enough.
    private func decide(_ latest: [Float]) -> Answer? {
        recent.append(latest)
        recent.removeFirst(max(0, recent.count - window))
        let mean = (0..<Self.classes).map { index in
            recent.reduce(Float(0)) { $0 + $1[index] } / Float(recent.count)
        }
        guard let highest = mean.max(), let best = mean.firstIndex(of: highest) else { return nil }
{% if contract.activation == "sigmoid" %}
        // Several classes may hold: each has a probability of its own.
        func probability(_ index: Int) -> Float { return 1 / (1 + exp(-mean[index])) }
{% else %}
        let total = mean.reduce(Float(0)) { $0 + exp($1 - highest) }
        func probability(_ index: Int) -> Float { return exp(mean[index] - highest) / total }
{% endif %}
        let now: Int? = probability(best) < threshold ? nil : best
        streak = now == leader ? streak + 1 : 1
        leader = now
        guard let shown = now != nil && streak >= hold ? now : answer?.index else { return nil }
        answer = Answer(index: shown, label: Self.labels[shown], probability: probability(shown))
        return answer
    }

    /// Runs the test vector and returns the largest error, as a share of the logits' range: at most `tolerance` where
    /// this device computes what it should.
    ///
    /// - Parameter vector: the folder `vector` of the kit
    public func selfCheck(vector: URL) throws -> Float {
        let inputs = try Data(contentsOf: vector.appendingPathComponent("input.bin"))
        let expected: [Float] = Self.floats(try Data(contentsOf: vector.appendingPathComponent("logits.bin")))
        let length = inputs.count / Self.steps
        guard expected.count == Self.steps * Self.classes, inputs.count == Self.steps * length,
            length == Self.inputShape.reduce({{ stored.itemsize }}, *)
        else { throw Failure.shape("the test vector") }
        reset()
        defer { reset() }
        var error: Float = 0
        for step in 0..<Self.steps {
            let given = Data(inputs[step * length..<(step + 1) * length])
{% if main.type == "image" %}
            let found = try run(Self.picture(planes: [UInt8](given)))
{% endif %}
{% if main.dtype != stored.name %}
            let found = try run(given.map { Float($0) })
{% endif %}
{% if main.dtype == stored.name == "float32" %}
            let found = try run(Self.floats(given))
{% endif %}
            for index in 0..<Self.classes {
                let difference = abs(found[index] - expected[step * Self.classes + index])
                if difference.isNaN { return difference }
                error = max(error, difference)
            }
        }
        let range = (expected.max() ?? 0) - (expected.min() ?? 0)
        return range > 0 ? error / range : error
    }

    /// Every Apple processor has the lowest byte first, as the file has.
    private static func floats(_ data: Data) -> [Float] {
        return data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }
{% if online %}

    private static func zeros() -> [String: MLFeatureValue] {
        var values: [String: MLFeatureValue] = [:]
        for state in states {
            let array = MLShapedArray<Float>(repeating: 0, shape: state.shape)
            values[state.input] = MLFeatureValue(shapedArray: array)
        }
        return values
    }
{% endif %}
{% if rgb %}

    /// Scales a picture's short side to `resize` and cuts `size` x `size` from its centre.
    private func square(of picture: CVPixelBuffer) throws -> CVPixelBuffer {
        let image = CIImage(cvPixelBuffer: picture)
        let scale = CGFloat(Self.resize) / min(image.extent.width, image.extent.height)
        let scaled = image.transformed(by: CGAffineTransform(scaleX: scale, y: scale))
        let left = ((scaled.extent.width - CGFloat(Self.size)) / 2).rounded()
        let bottom = ((scaled.extent.height - CGFloat(Self.size)) / 2).rounded()
        let result = try Self.empty()
        context.render(
            scaled.transformed(by: CGAffineTransform(translationX: -left, y: -bottom)), to: result,
            bounds: CGRect(x: 0, y: 0, width: Self.size, height: Self.size), colorSpace: nil)
        return result
    }

    private static func empty() throws -> CVPixelBuffer {
        var made: CVPixelBuffer?
        let attributes = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
        CVPixelBufferCreate(kCFAllocatorDefault, size, size, kCVPixelFormatType_32BGRA, attributes, &made)
        guard let buffer = made else { throw Failure.missing("memory for a picture") }
        return buffer
    }
{% if main.type == "image" %}

    /// Returns the picture whose red, green and blue planes lie one after the other.
    private static func picture(planes: [UInt8]) throws -> CVPixelBuffer {
        let buffer = try empty()
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let base = CVPixelBufferGetBaseAddress(buffer) else { throw Failure.missing("a picture's bytes") }
        for y in 0..<size {
            let row = (base + y * CVPixelBufferGetBytesPerRow(buffer)).assumingMemoryBound(to: UInt8.self)
            for x in 0..<size {
                for channel in 0..<3 {
                    row[4 * x + 2 - channel] = planes[(channel * size + y) * size + x]
                }
                row[4 * x + 3] = 255
            }
        }
        return buffer
    }
{% else %}

    /// Returns a frame as the network takes it: one plane after the other.
    private static func values(of frame: CVPixelBuffer) throws -> [Float] {
        CVPixelBufferLockBaseAddress(frame, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
        guard let base = CVPixelBufferGetBaseAddress(frame) else { throw Failure.missing("a picture's bytes") }
        var values: [Float] = []
        values.reserveCapacity(3 * size * size)
        for channel in 0..<3 {
            for y in 0..<size {
                let row = (base + y * CVPixelBufferGetBytesPerRow(frame)).assumingMemoryBound(to: UInt8.self)
                for x in 0..<size {
{% if not embedded %}
                    values.append((Float(row[4 * x + offsets[channel]]) / 255 - mean[channel]) / std[channel])
{% else %}
                    values.append(Float(row[4 * x + offsets[channel]]))
{% endif %}
                }
            }
        }
        return values
    }
{% endif %}
{% endif %}
{% if not online %}

    /// Returns the frames to take from a video of `total`.
    public static func indices(total: Int) -> [Int] {
{% if contract.stride is not none %}
        let room = max(0, total - ((frames - 1) * {{ contract.stride }} + 1))
        return (0..<frames).map { (room / 2 + {{ contract.stride }} * $0) % total }
{% else %}
        return (0..<frames).map { (2 * $0 + 1) * total / (2 * frames) }
{% endif %}
    }
{% endif %}
}
