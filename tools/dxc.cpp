// The command `dxc` around libdxcompiler, for machines that have the library alone: dxc ARGUMENTS… FILE compiles FILE and
// writes nothing; complaints go to stderr. DXC_LIBRARY names the library.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "WinAdapter.h"
#include "dxcapi.h"

int main(int count, char **words) {
    void *library = dlopen(getenv("DXC_LIBRARY") ? getenv("DXC_LIBRARY") : DXC_LIBRARY, RTLD_NOW);
    if (!library) return fprintf(stderr, "dxc: %s\n", dlerror()), 2;
    auto create = reinterpret_cast<DxcCreateInstanceProc>(dlsym(library, "DxcCreateInstance"));
    IDxcCompiler3 *compiler = nullptr;
    if (!create || FAILED(create(CLSID_DxcCompiler, IID_PPV_ARGS(&compiler))))
        return fprintf(stderr, "dxc: no IDxcCompiler3\n"), 2;
    if (count < 2 || !strcmp(words[1], "--version")) return puts("dxc, through libdxcompiler"), 0;

    std::ifstream file(words[count - 1], std::ios::binary);
    if (!file) return fprintf(stderr, "dxc: cannot read %s\n", words[count - 1]), 2;
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    std::vector<std::wstring> wide;
    for (int i = 1; i + 1 < count; i++) wide.emplace_back(words[i], words[i] + strlen(words[i]));
    std::vector<LPCWSTR> arguments;
    for (auto &w : wide) arguments.push_back(w.c_str());

    const DxcBuffer source = {text.data(), text.size(), DXC_CP_UTF8};
    IDxcResult *result = nullptr;
    HRESULT status = E_FAIL;
    if (FAILED(compiler->Compile(&source, arguments.data(), arguments.size(), nullptr, IID_PPV_ARGS(&result))) ||
        FAILED(result->GetStatus(&status)))
        return fprintf(stderr, "dxc: it does not run\n"), 2;
    IDxcBlobUtf8 *said = nullptr;
    result->GetOutput(DXC_OUT_ERRORS, IID_PPV_ARGS(&said), nullptr);
    if (said && said->GetStringLength() && FAILED(status)) fprintf(stderr, "%s\n", said->GetStringPointer());
    return SUCCEEDED(status) ? 0 : 1;
}
